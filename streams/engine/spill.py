"""The rows that memory has no room for, in a file without a name, which is gone with the process.

A thread writes them; what is on its way is read from memory, and is never more than a partition lets go at once.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from streams.fold.records import ROW_MAX

AT_ONCE = 500
"""Rows in one call of the kernel, which takes 1,024 at most."""
_SIZE_BITS = ROW_MAX.bit_length()


class Spill:
    """From key to row. What is taken leaves a hole, until `begin` and `move` have copied the rest into a new file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._turn, self._end = folder, 0, 0
        self._files: list[IO[bytes]] = [self._file(), self._file()]
        self.places: dict[bytes, int] = {}
        """Offset, size, and which of the two files, in one number each: there may be millions."""
        self._writing: Future[None] | None = None
        self._on_its_way: dict[bytes, bytes] = {}

    def _file(self) -> IO[bytes]:
        return TemporaryFile(dir=self._folder, buffering=0)

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Raises `OSError` for the rows that were put before, which can still be read; these are not taken."""
        self._settle()
        self._on_its_way = dict(rows)
        self._writing = _THREAD.submit(_write, self._files[self._turn], self._on_its_way, self._folder)
        for key, row in rows.items():
            self.places[key] = (self._end << _SIZE_BITS | len(row)) << 1 | self._turn
            self._end += len(row)

    def _settle(self) -> None:
        """Wait for the write that is on its way, whoever put the rows."""
        _THREAD.submit(int).result()
        if self._writing is not None:
            self._writing.result()

    def take(self, key: bytes) -> bytes | None:
        """The row, which is not here any more."""
        place = self.places.pop(key, None)
        return None if place is None else self._read(key, place)

    def _read(self, key: bytes, place: int) -> bytes:
        row = self._on_its_way.get(key)
        if row is not None:
            return row
        size = place >> 1 & (1 << _SIZE_BITS) - 1
        return os.pread(self._files[place & 1].fileno(), size, place >> 1 + _SIZE_BITS)

    def begin(self) -> None:
        """A new file, for what comes and what is moved."""
        self._settle()
        self._turn, self._end = 1 - self._turn, 0
        self._files[self._turn].close()
        self._files[self._turn] = self._file()

    def move(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Copy those that are still here into the new file. They and their rows."""
        rows = {key: self._read(key, self.places[key]) for key in keys if key in self.places}
        self.put(rows)
        return rows

    def close(self) -> None:
        """What came to be of the last write does not matter any more."""
        _THREAD.submit(int).result()
        for file in self._files:
            file.close()


def _write(file: IO[bytes], rows: dict[bytes, bytes], folder: Path) -> None:
    """Write them, and let them go."""
    data = list(rows.values())
    for at in range(0, len(data), AT_ONCE):
        some = data[at : at + AT_ONCE]
        if os.writev(file.fileno(), some) != sum(map(len, some)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    rows.clear()


_THREAD = ThreadPoolExecutor(1, "spill")

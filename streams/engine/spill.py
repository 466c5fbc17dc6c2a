"""The rows that memory has no room for, in a file without a name, which is gone with the process."""

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from streams.fold.records import ROW_MAX

_SIZE_BITS = ROW_MAX.bit_length()


class Spill:
    """From key to row. What is taken leaves a hole, until `begin` and `move` have copied the rest into a new file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._turn, self._end = folder, 0, 0
        self._files: list[IO[bytes]] = [self._file(), self._file()]
        self.places: dict[bytes, int] = {}
        """Offset, size, and which of the two files, in one number each: there may be millions."""

    def _file(self) -> IO[bytes]:
        return TemporaryFile(dir=self._folder, buffering=0)

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Raises `OSError`."""
        data = b"".join(rows.values())
        if self._files[self._turn].write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        for key, row in rows.items():
            self.places[key] = (self._end << _SIZE_BITS | len(row)) << 1 | self._turn
            self._end += len(row)

    def take(self, key: bytes) -> bytes | None:
        """The row, which is not here any more."""
        place = self.places.pop(key, None)
        return None if place is None else self._read(place)

    def _read(self, place: int) -> bytes:
        size = place >> 1 & (1 << _SIZE_BITS) - 1
        return os.pread(self._files[place & 1].fileno(), size, place >> 1 + _SIZE_BITS)

    def begin(self) -> None:
        """A new file, for what comes and what is moved."""
        self._turn, self._end = 1 - self._turn, 0
        self._files[self._turn].close()
        self._files[self._turn] = self._file()

    def move(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Copy those that are still here into the new file. They and their rows."""
        rows = {key: self._read(self.places[key]) for key in keys if key in self.places}
        self.put(rows)
        return rows

    def close(self) -> None:
        for file in self._files:
            file.close()

"""The rows of one partition on local disk, as of an offset of their changelog; LMDB.

It lets a worker restore from there on instead of from the beginning, and keep in memory only the rows in use. It is
never the truth: the changelog is, and a checkpoint that cannot be trusted is thrown away and made again. It is not
synced, so it survives the process and not the machine: what was written under another boot is not trusted.
"""

import asyncio
import errno
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from time import time
from typing import Self

import lmdb
import msgspec

from freshet.settings import Settings

OWN = b"\0"
"""The engine's own records (meta, ring) begin with it, and so does the note."""
_NOTE = b"\0\0note"
_MAP_BYTES = 1 << 36
"""Of address space, not of disk."""
STEP = 500
"""Rows in one of its transactions, about 1 ms: folding goes on between them.

Not in a thread: LMDB lets go of the interpreter's lock at each row, and to take it again from a busy fold cost four
times as much as to write the row.
"""
SPARE_BYTES = 256 << 20
"""The least that must be free before a write."""
OLDEST_S = 12 * 3_600
"""Kafka forgets deletions of a compacted topic after a day: rows from before one would come back."""
BOOT = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class Overtaken(RuntimeError):
    """Somebody else wrote into this checkpoint meanwhile."""


class _Note(msgspec.Struct):
    """`position` is the first offset of the changelog that is not in the rows; `keys` counts them."""

    position: int
    keys: int
    written_at: float
    boot: str


class Checkpoint:
    """Open in one process at a time. `position` is 0 and `keys` 0 where there is nothing that can be trusted."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._boot = folder, BOOT.read_text().strip() if BOOT.exists() else ""
        try:
            self._env = self._open()
        except lmdb.Error as error:
            log.warning("the checkpoint in %s cannot be opened and is made again: %s", folder, error)
            shutil.rmtree(folder)
            self._env = self._open()
        self._reading = self._env.begin()
        self.position = self.keys = 0
        note = self._read_note()
        if note is not None and self._trusted(note):
            self.position, self.keys = note.position, note.keys
        else:
            self.clear()

    @classmethod
    def of(cls, settings: Settings, log_topic: str, partition: int) -> Self | None:
        """That of this worker; None for a worker without a name, which could not find it again."""
        if settings.instance is None:
            return None
        return cls(settings.home / "state" / settings.instance / f"{log_topic}-{partition}")

    def _open(self) -> lmdb.Environment:
        self._folder.mkdir(parents=True, exist_ok=True)
        return lmdb.open(
            str(self._folder), map_size=_MAP_BYTES, writemap=True, sync=False, metasync=False, readahead=False
        )

    def _read_note(self) -> _Note | None:
        note = self._reading.get(_NOTE)
        return None if note is None else msgspec.json.decode(note, type=_Note)

    def _trusted(self, note: _Note) -> bool:
        return note.boot == self._boot != "" and time() - note.written_at < OLDEST_S

    def get(self, key: bytes) -> bytes | None:
        """As of the last step that was written."""
        return self._reading.get(key)

    def own(self) -> Iterator[tuple[bytes, bytes]]:
        """The engine's own records."""
        return ((key, value) for key, value in _own(self._reading) if key != _NOTE)

    async def write(self, records: Mapping[bytes, bytes | None], position: int) -> None:
        """Bring it up to a position; None deletes a key. Raises `Overtaken` and `OSError`.

        In steps, the note and the engine's own records last: rows that are newer than the position do no harm, as
        whoever restores reads them again from the changelog.
        """
        if shutil.disk_usage(self._folder).free < SPARE_BYTES:  # the file is mapped: a full disk would be a SIGBUS
            raise OSError(errno.ENOSPC, f"less than {SPARE_BYTES >> 20} MiB are free", str(self._folder))
        rows = sorted(key for key in records if not key.startswith(OWN))  # the order of the file's tree: half the time
        for start in range(0, len(rows), STEP):
            with self._writing() as writing:
                _put(writing, records, rows[start : start + STEP])
            await asyncio.sleep(0)
        with self._writing() as writing:
            _put(writing, records, records.keys() - set(rows))
            writing.delete(_NOTE)
            keys = writing.stat()["entries"] - sum(1 for _ in _own(writing))
            writing.put(_NOTE, msgspec.json.encode(_Note(position, keys, time(), self._boot)))
        self.position, self.keys = position, keys

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        with self._env.begin(write=True) as writing:
            note = writing.get(_NOTE)
            if (0 if note is None else msgspec.json.decode(note, type=_Note).position) != self.position:
                raise Overtaken(f"another process writes to {self._folder}")
            self._reading.abort()  # a reader of an older transaction would keep every page that is freed meanwhile
            yield writing
        self._reading = self._env.begin()

    def clear(self) -> None:
        """Begin with nothing."""
        self.close()
        shutil.rmtree(self._folder)
        self._env = self._open()
        self._reading = self._env.begin()
        self.position = self.keys = 0

    def close(self) -> None:
        self._reading.abort()
        self._env.close()


def _put(transaction: lmdb.Transaction, records: Mapping[bytes, bytes | None], keys: Iterable[bytes]) -> None:
    for key in keys:
        value = records[key]
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)


def _own(transaction: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
    return takewhile(lambda record: record[0].startswith(OWN), ((bytes(k), bytes(v)) for k, v in transaction.cursor()))

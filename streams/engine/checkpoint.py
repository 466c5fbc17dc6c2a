"""The changelog of one partition on local disk: the batches of its commits, as they were sent to Kafka.

A worker restores from it, and reads from the topic only what came after. It is never the truth: the changelog is, and a
checkpoint that cannot be trusted is thrown away and made again. It is not synced, so it survives the process and not
the machine: each commit says how long it is and under which boot it was written, and each batch has its checksum. Which
rows it needs once many of them are old is left to `streams.engine.kept`.
"""

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain, cycle, repeat
from pathlib import Path
from struct import Struct
from time import time
from typing import NamedTuple, Self

from crc32c import crc32c

from freshet.settings import Settings
from streams.engine.batches import packed
from streams.engine.disk import Buffer, Bytes, File, whole
from streams.engine.unpacking import check
from streams.fold.records import State
from streams.fold.rows import TakenRows

OLDEST_S = 12 * 3_600
"""Kafka forgets deletions of a compacted topic after a day: rows from before one would come back."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
LAYOUT = b"blocks"
"""A file that was laid out otherwise is one of another boot."""
LUMP = 4 << 20
"""Bytes that a restore reads at a time,"""
AHEAD = 2
"""and lumps that it reads while it unpacks those before: one alone leaves the disk at rest while it is checked."""
_COMMIT, _SUM = Struct("<IIqqd"), Struct("<I")
"""Before a commit: the boot, how many records, the position after it, its bytes, the time; and a checksum of these."""
_HEAD = _COMMIT.size + _SUM.size


class Taken(RuntimeError):
    """Another process has this checkpoint open."""


class _Commit(NamedTuple):
    records: int
    position: int
    start: int
    end: int
    at_s: float


class _Commits:
    """Commits in a file, each from a whole block on; what is not whole at its end is cut off. `records` counts all."""

    def __init__(self, path: Path) -> None:
        self._file, self._boot = File(path), crc32c(LAYOUT + (BOOT.read_bytes() if BOOT.exists() else b""))
        self.position = self.records = self._end = 0
        at_s = time()
        for commit in self._commits():
            self.position, self._end, at_s = commit.position, commit.end, commit.at_s
            self.records += commit.records
        if time() - at_s > OLDEST_S:
            self.clear()
        else:
            self._file.truncate(self._end)

    def clear(self) -> None:
        self._file.truncate(0)
        self.position = self.records = self._end = 0

    def _commits(self) -> Iterator[_Commit]:
        at, size = 0, self._file.size()
        while at + _HEAD <= size:
            head = self._file.peek(_HEAD, at)
            boot, records, position, length, at_s = _COMMIT.unpack_from(head)
            start, end = at + _HEAD, at + _HEAD + length
            fits = _SUM.unpack_from(head, _COMMIT.size) == (crc32c(head[: _COMMIT.size]),) and end <= size
            if not fits or boot != self._boot:
                return
            yield _Commit(records, position, start, end, at_s)
            at = whole(end)

    def lumps(self) -> Iterator[list[_Commit]]:
        """All of them, some that lie together at a time."""
        some: list[_Commit] = []
        for commit in self._commits():
            if some and commit.end - some[0].start > LUMP:
                yield some
                some = []
            some.append(commit)
        if some:
            yield some

    def read(self, some: Sequence[_Commit], buffer: Buffer) -> list[memoryview]:
        """The batches of commits that lie together. It may be called in a thread. Raises `BadBatch`."""
        start, end = some[0].start - _HEAD, some[-1].end
        data = buffer.view(whole(end - start))
        self._file.read(data, start, end - start)
        found = [data[commit.start - start : commit.end - start] for commit in some]
        for batches in found:
            check(batches)
        return found

    def append(self, batches: Sequence[Bytes], records: int, position: int) -> None:
        length = sum(map(len, batches))
        head, at = _COMMIT.pack(self._boot, records, position, length, time()), whole(self._end)
        self._file.write([head, _SUM.pack(crc32c(head)), *batches], at)
        self.position, self.records, self._end = position, self.records + records, at + _HEAD + length

    async def settled(self) -> None:
        await self._file.settled()

    def take_the_place_of(self, path: Path) -> None:
        self._file.rename(path)

    def close(self) -> None:
        self._file.close()


class Checkpoint:
    """One process has it open at a time. `position` is the first offset of the changelog that is not in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._path, self._rewritten = folder, folder / "commits", folder / "rewritten"
        self._file: _Commits
        self._new: _Commits | None
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Taken(f"another process has the checkpoint {folder} open: two workers run under one name") from error
        self._rewritten.unlink(missing_ok=True)
        self._file, self._new = _Commits(self._path), None

    @classmethod
    def of(cls, settings: Settings, log_topic: str, partition: int) -> Self:
        """That of this worker, by its name."""
        return cls(settings.home / "state" / settings.instance / f"{log_topic}-{partition}")

    @property
    def position(self) -> int:
        return self._file.position

    @property
    def records(self) -> int:
        """How many it holds, old ones with them."""
        return self._file.records

    async def read(self) -> AsyncIterator[memoryview]:
        """The batches of each commit, in their order; they are there until the next is asked for. Raises `BadBatch`."""
        ahead: deque[asyncio.Future[list[memoryview]]] = deque()
        buffers = cycle([Buffer() for _ in range(AHEAD + 1)])
        try:
            for some in chain(self._file.lumps(), repeat(None, AHEAD)):
                if some is not None:
                    ahead.append(self._ahead(some, next(buffers)))
                if ahead and (some is None or len(ahead) > AHEAD):
                    for batches in await ahead.popleft():
                        yield batches
                        await asyncio.sleep(0)
        finally:
            for reading in ahead:
                reading.cancel()

    def _ahead(self, some: list[_Commit], buffer: Buffer) -> asyncio.Future[list[memoryview]]:
        return asyncio.ensure_future(asyncio.to_thread(self._file.read, some, buffer))

    def append(self, batches: Sequence[Bytes], records: int, position: int) -> None:
        """A commit, all of it or nothing; `batches` must not change any more. Raises `OSError`, for the one before."""
        for file in (self._file, self._new):
            if file is not None:
                file.append(batches, records, position)

    def begin(self) -> None:
        """Begin to rewrite it. From now on `append` writes to both."""
        self._new = _Commits(self._rewritten)

    async def settled(self) -> None:
        """After a breath, when the new one can take rows without a wait."""
        assert self._new is not None
        await asyncio.sleep(0)
        await self._new.settled()

    def add(self, rows: Sequence[State] | TakenRows) -> None:
        """Rows for the new one alone."""
        assert self._new is not None
        made = packed((), rows) if isinstance(rows, TakenRows) else packed(rows)
        self._new.append(made, len(rows), 0)

    def finish(self, own: Sequence[State]) -> None:
        """With the engine's own records as of `position` the new one is whole, and takes the old one's place."""
        assert self._new is not None
        self._new.append(packed(own), len(own), self.position)
        self._new.take_the_place_of(self._path)
        self._file.close()
        self._file, self._new = self._new, None

    def clear(self) -> None:
        """Begin with nothing."""
        self._file.clear()

    def close(self) -> None:
        for file in (self._file, self._new):
            if file is not None:
                file.close()
        os.close(self._lock)

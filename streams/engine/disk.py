"""A file that is written and read past the kernel's cache (`O_DIRECT`), where kernel and file system can.

For what nobody reads before the next start: Kafka's own files need that memory, and where a host has to give it first,
a copy there costs ten times as much. One thread writes what is large for all files of the process; of each file one
write is on its way at a time, for which the next call waits, and raises what became of it.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

BLOCK = 4_096
"""Places and sizes of what goes past the cache are multiples of it."""
LARGE = 64 << 10
"""Fewer bytes go through the cache: the kernel writes many of them at once, later."""
PIECE = 1 << 20
_DIRECT: int = getattr(os, "O_DIRECT", 0)

Bytes = bytes | bytearray


def whole(size: int) -> int:
    """With what fills its last block."""
    return -(-size // BLOCK) * BLOCK


def _open(path: Path, how: int) -> int:
    """Past the cache, where the file system can."""
    try:
        return os.open(path, how | _DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, how)


class Buffer:
    """Memory at a place that the disk takes, used again and again."""

    def __init__(self, size: int = LARGE) -> None:
        self._memory = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)

    def view(self, size: int) -> memoryview:
        if size > len(self._memory):
            self._memory = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)
        return memoryview(self._memory)[:size]


class File:
    """Raises `OSError` wherever the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._direct = _open(path, os.O_WRONLY)
        self._writing: Future[None] | None = None

    def size(self) -> int:
        self.settle()
        return os.fstat(self._fd).st_size

    def peek(self, size: int, at: int) -> bytes:
        return os.pread(self._fd, size, at)

    def read(self, into: memoryview, at: int, least: int) -> None:
        """Whole blocks, of which so many bytes are there. For a thread: it opens the file anew, whoever closes it."""
        fds = [_open(self.path, os.O_RDONLY), os.open(self.path, os.O_RDONLY)]
        try:
            if _either(fds, lambda fd: os.preadv(fd, [into], at)) < least:
                raise OSError(errno.EIO, "the file ends too early", str(self.path))
        finally:
            for fd in fds:
                os.close(fd)

    def write(self, parts: Sequence[Bytes], at: int) -> None:
        """All of them, at a multiple of a block. What is large must not change until the next call."""
        self.settle()
        size = sum(map(len, parts))
        if size < LARGE:
            self._check(os.pwritev(self._fd, parts, at), size)
        else:
            self._writing = _THREAD.submit(self._write, parts, at)

    def _write(self, parts: Sequence[Bytes], at: int) -> None:
        """By pieces: what is there of them shows how far it came."""
        view, filled = _BUFFER.view(PIECE), 0
        for part in parts:
            left, taken = memoryview(part), 0
            while taken < len(left):
                some = left[taken : taken + PIECE - filled]
                view[filled : filled + len(some)] = some
                taken, filled = taken + len(some), filled + len(some)
                if filled == PIECE:
                    self._put(view, at)
                    at, filled = at + PIECE, 0
        view[filled : whole(filled)] = bytes(whole(filled) - filled)
        self._put(view[: whole(filled)], at)

    def _put(self, view: memoryview, at: int) -> None:
        self._check(_either((self._direct, self._fd), lambda fd: os.pwrite(fd, view, at)), len(view))

    def _check(self, written: int, size: int) -> None:
        if written < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    async def settled(self) -> None:
        """When no write is on its way."""
        if self._writing is not None:
            await asyncio.wait([asyncio.wrap_future(self._writing)])

    def settle(self) -> None:
        """Wait for the write that is on its way."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _wait(self) -> None:
        """The same where it does not matter what became of it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            wait([writing])

    def truncate(self, size: int) -> None:
        self._wait()
        os.truncate(self._fd, size)

    def rename(self, path: Path) -> None:
        self.settle()
        self.path = self.path.rename(path)

    def close(self) -> None:
        """What came to be of the last write shows when the file is read."""
        self._wait()
        os.close(self._fd)
        os.close(self._direct)


def _either(fds: Sequence[int], call: Callable[[int], int]) -> int:
    """By the first, or by the second where the first asks for more than blocks."""
    try:
        return call(fds[0])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return call(fds[1])


_THREAD = ThreadPoolExecutor(1, "disk")
_BUFFER = Buffer(PIECE)
"""Of that thread."""

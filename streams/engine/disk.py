"""A file that is written and read past the kernel's cache (`O_DIRECT`), where kernel and file system can.

For what nobody reads before the next start: Kafka's own files need that memory, and where a host has to give it first,
a copy there costs ten times as much. One thread writes for all files of the process, so that no event waits for a disk;
of each file one write is on its way at a time, and the next call of `write` or `settle` raises what became of it.
"""

import errno
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

BLOCK = 4_096
"""Places and sizes of what goes past the cache are multiples of it."""
LARGE = 64 << 10
"""Fewer bytes go through the cache: the kernel writes many of them at once, later."""
_DIRECT: int = getattr(os, "O_DIRECT", 0)

Bytes = bytes | bytearray


def whole(size: int) -> int:
    """With what fills its last block."""
    return -(-size // BLOCK) * BLOCK


class Buffer:
    """Memory at a place that the disk takes, used again and again."""

    def __init__(self) -> None:
        self._memory = mmap(-1, LARGE, MAP_PRIVATE | MAP_ANONYMOUS)

    def view(self, size: int) -> memoryview:
        if size > len(self._memory):
            self._memory = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)
        return memoryview(self._memory)[:size]


class File:
    """Raises `OSError` wherever the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._direct = self._past_the_cache(os.O_WRONLY)
        self._writing: Future[None] | None = None

    def _past_the_cache(self, how: int) -> int | None:
        try:
            return os.open(self.path, how | _DIRECT) if _DIRECT else None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None  # the file system cannot

    def size(self) -> int:
        self.settle()
        return os.fstat(self._fd).st_size

    def peek(self, size: int, at: int) -> bytes:
        return os.pread(self._fd, size, at)

    def read(self, into: memoryview, at: int) -> None:
        """Whole blocks; the last may end with the file. For a thread: it opens the file anew, whoever closes it."""
        fd = self._past_the_cache(os.O_RDONLY)
        fd = os.open(self.path, os.O_RDONLY) if fd is None else fd
        try:
            os.preadv(fd, [into], at)
        finally:
            os.close(fd)

    def write(self, parts: Sequence[Bytes], at: int) -> None:
        """All of them, at a multiple of a block. What is large must not change until the next call."""
        self.settle()
        size = sum(map(len, parts))
        if self._direct is None or size < LARGE:
            self._check(os.pwritev(self._fd, parts, at), size)
        else:
            self._writing = _THREAD.submit(self._write, self._direct, parts, size, at)

    def _write(self, fd: int, parts: Sequence[Bytes], size: int, at: int) -> None:
        view, end = _BUFFER.view(whole(size)), 0
        for part in parts:
            start, end = end, end + len(part)
            view[start:end] = part
        view[end:] = bytes(len(view) - end)
        self._check(os.pwrite(fd, view, at), size)

    def _check(self, written: int, size: int) -> None:
        if written < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def settle(self) -> None:
        """Wait for the write that is on its way."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def truncate(self, size: int) -> None:
        self.settle()
        os.truncate(self._fd, size)

    def rename(self, path: Path) -> None:
        self.settle()
        self.path = self.path.rename(path)

    def close(self) -> None:
        """After what is on its way; whether that came to be shows when the file is read."""
        if self._writing is not None:
            wait([self._writing])
        for fd in (self._fd, self._direct):
            if fd is not None:
                os.close(fd)


_THREAD = ThreadPoolExecutor(1, "disk")
_BUFFER = Buffer()
"""Of that thread."""

"""What becomes of memory that was freed. By itself, glibc gives a megabyte back to the kernel and asks for it again,
page by page, for each commit: 6 to 11% of a worker's time. And what one thread frees, no other has.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # as <malloc.h> has them
KEPT_BYTES = 128 << 20
LARGEST_BYTES = 32 << 20
"""The largest block that is not the kernel's own; glibc takes no more."""


def keep() -> None:
    """Have it kept for the next commit, where the allocator can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(_ARENA_MAX, 1)

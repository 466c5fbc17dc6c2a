"""Keeps a serving process's memory flat: arrays of all items lie in pages of their own, which go back as they go.

glibc does so for arrays above 128 KB, but only until the first of them is freed: from then on arrays as large come from
the heap, and each tile's leave holes there that the next ones seldom fit. Where there is no glibc nothing is changed.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LEAST, MOST = 2 << 20, 32 << 20
"""Bytes. An answer's largest array takes 1.9 MB (300 candidates by 50 items of the history by 32 units of attention),
and asking for its pages anew would cost each answer; more than 32 MB glibc does not take."""
AN_ITEM = 16
"""Bytes. Of all items an answer makes arrays of at most 8 bytes each, and what stays takes 64 each and more."""
SPARE = 8
"""What the heap may keep at its end, in the largest of its arrays: all that an answer asks for comes from there."""


def keep_apart(items: int) -> None:
    """Give arrays that are made of so many items pages of their own, and take what an answer makes from the heap."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        largest = min(max(LEAST, AN_ITEM * items), MOST)
        mallopt(M_MMAP_THRESHOLD, largest)
        mallopt(M_TRIM_THRESHOLD, SPARE * largest)

"""The best inner products of a vector with many rows: found by bytes, decided by the numbers themselves.

A quarter of the memory is read, which is what a scan of many rows waits for. Rows and the vector are rounded to bytes,
each with a scale of its own; how far that can be off is known, so every row that could be among the best is kept, and
only those are multiplied in float32. The answer is that of multiplying all of them.
"""

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices

try:
    from bentos.stages.scan import USABLE, scan
except ImportError:  # no C compiler where Freshet was installed
    USABLE = False

BLOCK = 64
"""Rows that the compiled loop takes at once."""
CHUNK = 512 * BLOCK
"""Rows that are rounded at once: all of them would need the memory of their float32 several times."""
ROUNDING = 1e-5
"""By how much, of the product of the lengths, float32 sums of a few hundred terms differ from the true ones."""


class Nearest:
    """The rows of a float32 [n, d] as bytes. `usable` tells where this works at all."""

    usable = USABLE

    def __init__(self, vectors: Floats) -> None:
        n, d = vectors.shape
        blocks, fours = -(-n // BLOCK), -(-d // 4)
        self._codes = np.full((blocks, fours, BLOCK, 4), 128, dtype=np.uint8)
        self._scales = np.zeros(blocks * BLOCK, dtype=np.float32)
        self._off = self._length = 0.0  # at most, in scales: what rounding takes away of a row, and a row
        for at in range(0, n, CHUNK):
            some = np.zeros((-(-len(vectors[at : at + CHUNK]) // BLOCK) * BLOCK, 4 * fours), dtype=np.float32)
            some[: n - at, :d] = vectors[at : at + CHUNK]
            scales = np.abs(some).max(1) / np.float32(127)
            some /= np.where(scales > 0, scales, np.float32(1))[:, None]
            whole = np.rint(some)
            self._scales[at : at + len(some)] = scales
            self._off = max(self._off, float(np.linalg.norm(some - whole, axis=1).max()))
            self._length = max(self._length, float(np.linalg.norm(some, axis=1).max()))
            parted = (whole + 128).astype(np.uint8).reshape(-1, BLOCK, fours, 4)
            self._codes[at // BLOCK : (at + len(some)) // BLOCK] = parted.transpose(0, 2, 1, 3)

    def rows(self, vector: Floats, allowed: npt.NDArray[np.bool_], size: int) -> Indices:
        """Allowed rows, ascending, among which are the `size` whose products are largest, if above 0; few more."""
        step = float(np.abs(vector).max()) / 127
        if step == 0.0:
            return np.empty(0, dtype=np.int64)
        query = np.zeros(4 * self._codes.shape[1], dtype=np.int8)
        query[: len(vector)] = np.rint(vector / step)
        off = float(np.linalg.norm(vector - step * query[: len(vector)]))
        length = float(np.linalg.norm(vector))
        slack = off * (self._length + self._off) + length * (self._off + ROUNDING * self._length)
        most, least = np.empty(len(self._scales), np.float32), np.empty(len(self._codes), np.float32)
        scan(self._codes, self._scales, allowed.view(np.uint8), query, step, slack, most, least)
        floor = np.partition(least, -size)[-size] if size <= len(least) else np.float32(0)
        return np.flatnonzero(most >= floor if floor > 0 else most > 0)

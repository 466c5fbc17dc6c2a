"""The best inner products of a vector with many rows: found by half bytes, decided by the numbers themselves.

An eighth of the memory is read, which is what a scan of many rows waits for. Rows and the vector are rounded to bytes,
each with a scale of its own, and of a row's the upper half is read first. How far either can be off is known, so every
row that could be among the best is kept, and only those are multiplied in float32. The answer is that of multiplying
all of them.
"""

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices

try:
    from bentos.stages.scan import USABLE, refine, scan
except ImportError:  # Python had no headers where Freshet was installed
    USABLE = False

BLOCK = 64
"""Rows that the compiled loop takes at once."""
CHUNK = 512 * BLOCK
"""Rows that are rounded at once: all of them would need the memory of their float32 several times."""
ROUNDING = 1e-5
"""By how much, of the product of the lengths, float32 sums of a few hundred terms differ from the true ones."""

SAMPLE = 16
"""Of every so many blocks one is looked at first: it tells how much the best of all reach at least."""
ABOVE_0 = float(np.finfo(np.float32).smallest_subnormal)


def products(vectors: Floats, rows: Indices, vector: Floats) -> Floats:
    """Those of these rows, float32 [len(rows)]. A row's has the same bits among any: OpenBLAS takes them by fours."""
    fours = np.append(rows, np.zeros(-len(rows) % 4, dtype=np.int64))
    found: Floats = (vectors[fours] @ vector)[: len(rows)]
    return found


class Nearest:
    """The rows of a float32 [n, d] as bytes, in two halves, beside them. `usable` tells where this works at all."""

    usable = USABLE

    def __init__(self, vectors: Floats) -> None:
        n, d = vectors.shape
        blocks, eights, wide = -(-n // BLOCK), -(-d // 8), -(-d // 64)
        self._vectors = vectors
        self._codes = np.zeros((blocks, eights, BLOCK, 4), dtype=np.uint8)
        self._rests = np.zeros((blocks * BLOCK, 32 * wide), dtype=np.uint8)
        self._scales = np.zeros(blocks * BLOCK, dtype=np.float32)
        self._length, self._off = 0.0, [0.0, 0.0]
        """In scales: the longest row; what rounding to half a byte, and to a whole one, takes away of a row at most."""
        for at in range(0, n, CHUNK):
            some = np.zeros((-(-len(vectors[at : at + CHUNK]) // BLOCK) * BLOCK, 64 * wide), dtype=np.float32)
            some[: n - at, :d] = vectors[at : at + CHUNK]
            scales = np.abs(some).max(1) / np.float32(255)
            some /= np.where(scales > 0, scales, np.float32(1))[:, None]
            whole = np.clip(np.floor(some / 2) + 128, 0, 255).astype(np.uint8)
            codes, rests = whole >> 4, whole & 15
            for k, rounded in enumerate((16.0 * (2.0 * codes - 15), 2.0 * whole - 255)):
                left = np.linalg.norm((some - rounded)[scales > 0, :d], axis=1)
                self._off[k] = max(self._off[k], float(left.max(initial=0.0)))
            self._length = max(self._length, float(np.linalg.norm(some, axis=1).max()))
            here = slice(at, at + len(some))
            self._scales[here] = scales
            parted = codes[:, : 8 * eights].reshape(-1, BLOCK, eights, 2, 4).transpose(3, 0, 2, 1, 4)
            self._codes[at // BLOCK : at // BLOCK + parted.shape[1]] = parted[0] | parted[1] << 4
            parted = rests.reshape(-1, wide, 2, 32).transpose(2, 0, 1, 3)
            self._rests[here] = (parted[0] | parted[1] << 4).reshape(len(some), -1)

    def best(self, vector: Floats, allowed: npt.NDArray[np.bool_], size: int) -> tuple[Indices, Floats]:
        """Allowed rows, ascending, and their products: among them the `size` largest, if above 0; few more."""
        step = float(np.abs(vector).max()) / 127
        if step == 0.0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        query = np.zeros(2 * self._rests.shape[1], dtype=np.int8)
        query[: len(vector)] = np.rint(vector / step)
        less = float(np.linalg.norm(vector - step * query[: len(vector)]))
        length = float(np.linalg.norm(vector))
        half, whole = (less * (self._length + off) + length * (off + ROUNDING * self._length) for off in self._off)
        rows, most = np.empty(len(self._scales), np.int32), np.empty(len(self._scales), np.float32)
        floor = ABOVE_0
        for every in (SAMPLE, 1):
            count = scan(
                self._codes, self._scales, allowed.view(np.uint8), every, query, 16 * step, half, floor, rows, most
            )
            floor = self._floor(rows[:count], most[:count], vector, size)
        reach = most[:count] >= floor
        rows, most = rows[:count][reach], most[:count][reach]
        refine(self._rests, self._scales, query, step, half - whole, rows, most)
        found = rows[most >= floor].astype(np.int64)
        return found, products(self._vectors, found, vector)

    def _floor(self, rows: npt.NDArray[np.int32], most: Floats, vector: Floats, size: int) -> float:
        """What the `size` largest products reach at least: as much as those of some rows that may be large do."""
        if len(rows) > 2 * size:
            rows = rows[np.argpartition(most, -2 * size)[-2 * size :]]
        if len(rows) < size:
            return ABOVE_0
        found = products(self._vectors, rows.astype(np.int64), vector)
        return max(float(np.partition(found, -size)[-size]), ABOVE_0)

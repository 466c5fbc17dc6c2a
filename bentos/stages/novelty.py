"""What is not known yet: how seldom an item was liked, and how lately it came to be."""

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices, ItemMatrix
from streams.aggregates import HOUR, SECOND


def novelty(items: ItemMatrix) -> npt.NDArray[np.float64]:
    """-log2 of each item's share of all likes, in bits. float64 [n]."""

    def make() -> npt.NDArray[np.float64]:
        likes = items.column("likes_ever")
        return np.asarray(-np.log2((likes + 1.0) / (likes.sum() + len(likes))))

    bits: npt.NDArray[np.float64] = items.once("novelty", make)
    return bits


def freshness(items: ItemMatrix, rows: Indices, half_life_hours: float) -> Floats:
    """1 of an item that has just come to be, half as much after each `half_life_hours`. float32 [len(rows)].

    It came to be when the catalogue says so, else with its first event.
    """

    def make() -> npt.NDArray[np.int64]:
        return np.array([0 if item is None else item.created_at or 0 for item in items.described], dtype=np.int64)

    created: npt.NDArray[np.int64] = items.derive(freshness, make)[rows]
    age = np.where(created > 0, np.maximum(items.tile - created, 0), items.column("age_s")[rows] * SECOND)
    fresh: Floats = np.exp2(-age / (half_life_hours * HOUR)).astype(np.float32)
    return fresh

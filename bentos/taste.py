"""Taste: where the items lie among what users share, so that it can be said how near one is to all that a user chose.

How near a candidate is, is left to `bentos.inputs`, fitting the vectors to `training.taste`.
"""

from dataclasses import dataclass

import numpy as np

from bentos.inputs import Floats, Indices, ItemMatrix


def unit(vectors: Floats) -> Floats:
    """Each row scaled to length 1; a row of zeros stays one."""
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))
    return scaled


@dataclass(frozen=True, eq=False)
class Taste:
    """A vector for each item of the bundle, float32 [bundle items, d]: of length 1, or 0 where nobody liked it yet."""

    items: Floats

    def vectors(self, items: ItemMatrix, known: Indices) -> Floats:
        """A vector for every item of the matrix, float32 [n, d], of length 1.

        `known` int64 [n]: the row of each in the bundle, -1 where it has none. An item without a vector of its own gets
        the mean of its categories', and 0 where they have none either.
        """
        out = np.zeros((len(items), self.items.shape[1]), dtype=np.float32)
        out[known >= 0] = self.items[known[known >= 0]]
        there, hot = out.any(1), items.categories
        means = hot[there].T @ out[there] / np.maximum(hot[there].sum(0), 1.0)[:, None]
        out[~there] = unit(hot[~there] @ means)
        return out

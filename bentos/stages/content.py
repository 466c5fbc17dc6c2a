"""Content: an item's vector from its categories and words alone, so that what nobody has liked yet can be recalled.

The items' side of a two-tower model whose users' side is the sum of what was liked. How its weights are learned is
left to `training.content`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from zlib import crc32

import numpy as np
from scipy.sparse import csr_matrix

from bentos.inputs import Floats, Indices, ItemMatrix
from streams.catalogue import Item

BUCKETS = 4_096
"""Categories and words are hashed into so many."""
WORDS = 64
"""Of title and description together; the first ones."""

_word = re.compile(r"\w+")


def buckets(item: Item) -> set[int]:
    """Where an item's categories and words fall: numbers below `BUCKETS`."""
    text = f"{item.title} {item.description or ''}".lower()
    words = (f"word {found[0]}" for found in islice(_word.finditer(text), WORDS))
    return {crc32(text.encode()) % BUCKETS for text in (*(f"category {name}" for name in item.categories), *words)}


def features(items: Sequence[Item | None]) -> csr_matrix:
    """What is said of items, 0/1 float32 [n, BUCKETS]; nothing of one that is not described."""
    found = [sorted(buckets(item)) if item is not None else [] for item in items]
    ends = np.cumsum([0, *map(len, found)])
    columns = np.array([bucket for some in found for bucket in some], dtype=np.int64)
    return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(found), BUCKETS))


@dataclass(frozen=True, eq=False)
class Tower:
    """`weights` float32 [BUCKETS, d]: an item's vector is the sum of its buckets' rows."""

    weights: Floats

    def vectors(self, items: Sequence[Item | None]) -> Floats:
        """float32 [n, d]; 0 for an item of which nothing is said."""
        made: Floats = (features(items) @ self.weights).astype(np.float32, copy=False)
        return made

    def complete(self, learned: Floats, known: Indices, items: ItemMatrix) -> Floats:
        """A vector for every row of the matrix, float32 [n, d].

        `learned` [m, d] has those of a bundle's items, `known` int64 [n] the place of each row among them, -1: none.
        """
        out = learned[known]
        strange = np.flatnonzero(known < 0)
        out[strange] = self.vectors([items.described[row] for row in strange.tolist()])
        return out

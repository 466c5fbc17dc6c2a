"""Fits the item-to-item source: a closed form while the catalogue is small, neighbours beyond.

Up to `CLOSED_FORM_ITEMS` items it is EASE (Steck, WWW 2019), whose cost grows with the cube of the items; beyond it is
weighed co-occurrence, which stays sparse. Either way each item keeps its strongest `LINKS` links.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags

from bentos.stages.recall import ItemToItem

CLOSED_FORM_ITEMS = 6_000
"""The inverse of 6,000 x 6,000 takes 5 s on one core; every doubling takes eight times as long."""
LINKS = 400
REGULARISATION = 200.0
BLOCK = 2_000
"""Rows whose co-occurrence is held at a time."""


class Powers(NamedTuple):
    """How much the likes of a user, of the liked item and of the item asked about weigh: each to minus this power."""

    user: float
    liked: float
    asked: float


COSINE = Powers(0.0, 0.5, 0.5)
LARGE = Powers(0.75, 0.75, 0.25)
"""Chosen on a split of Gowalla's training part: Recall@20 .2162, the cosine's is .1666."""


def fit(liked: csr_matrix, regularisation: float = REGULARISATION) -> ItemToItem:
    """Fit on a 0/1 matrix of users and items, float [users, items]."""
    return ItemToItem(
        ease(liked, regularisation) if liked.shape[1] <= CLOSED_FORM_ITEMS else neighbours(liked, LINKS, LARGE)
    )


def ease(liked: csr_matrix, regularisation: float = REGULARISATION) -> csr_matrix:
    """The weights of EASE, its strongest links of each row. float32 [items, items]."""
    gram = np.asarray((liked.T @ liked).todense(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += regularisation
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    if weights.shape[1] > LINKS:
        floor = np.partition(np.abs(weights), -LINKS, axis=1)[:, -LINKS]
        weights[np.abs(weights) < floor[:, None]] = 0.0
    return csr_matrix(weights.astype(np.float32))


def neighbours(liked: csr_matrix, links: int, powers: Powers) -> csr_matrix:
    """Co-occurrence weighed by powers of the degrees, the strongest links of each row. float32 [items, items]."""
    of_user = np.maximum(np.asarray(liked.sum(1)).ravel(), 1.0)
    of_item = np.maximum(np.asarray(liked.sum(0)).ravel(), 1.0)
    mine = (diags(of_item**-powers.liked) @ liked.T @ diags(of_user**-powers.user)).tocsr()
    theirs = (liked @ diags(of_item**-powers.asked)).tocsr()
    data, indices, indptr = [], [], [0]
    for begin in range(0, mine.shape[0], BLOCK):
        near = (mine[begin : begin + BLOCK] @ theirs).tocsr()
        near.sort_indices()
        for row in range(near.shape[0]):
            values = near.data[near.indptr[row] : near.indptr[row + 1]]
            columns = near.indices[near.indptr[row] : near.indptr[row + 1]]
            other = columns != begin + row
            values, columns = values[other], columns[other]
            best = np.sort(np.argsort(-values, kind="stable")[:links])
            data.append(values[best])
            indices.append(columns[best])
            indptr.append(indptr[-1] + len(best))
    shape = (liked.shape[1], liked.shape[1])
    return csr_matrix((np.concatenate(data).astype(np.float32), np.concatenate(indices), indptr), shape=shape)


def cosine(liked: csr_matrix, links: int) -> csr_matrix:
    """Cosine between the items' users, the strongest links of each row. float32 [items, items]."""
    return neighbours(liked, links, COSINE)

"""Fits the item-to-item source: a closed form while the catalogue is small, cosines beyond.

Up to `CLOSED_FORM_ITEMS` items it is EASE (Steck, WWW 2019), whose cost grows with the cube of the items; beyond it is
the cosine of co-occurrence, which stays sparse. Either way each item keeps its strongest `LINKS` links.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags

from bentos.stages.recall import ItemToItem

CLOSED_FORM_ITEMS = 6_000
"""The inverse of 6,000 x 6,000 takes 5 s on one core; every doubling takes eight times as long."""
LINKS = 400
REGULARISATION = 200.0


def fit(liked: csr_matrix) -> ItemToItem:
    """Fit on a 0/1 matrix of users and items, float [users, items]."""
    return ItemToItem(ease(liked) if liked.shape[1] <= CLOSED_FORM_ITEMS else cosine(liked, LINKS))


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


def cosine(liked: csr_matrix, links: int) -> csr_matrix:
    """Cosine between the items' users, the strongest links of each row. float32 [items, items]."""
    size = np.sqrt(np.maximum(np.asarray(liked.sum(0)).ravel(), 1.0))
    unit = liked @ diags(1.0 / size)
    near = (unit.T @ unit).tocsr()
    near.setdiag(0.0)
    near.eliminate_zeros()
    near.sort_indices()
    data, indices, indptr = [], [], [0]
    for row in range(near.shape[0]):
        values = near.data[near.indptr[row] : near.indptr[row + 1]]
        columns = near.indices[near.indptr[row] : near.indptr[row + 1]]
        best = np.sort(np.argsort(-values, kind="stable")[:links])
        data.append(values[best])
        indices.append(columns[best])
        indptr.append(indptr[-1] + len(best))
    return csr_matrix((np.concatenate(data).astype(np.float32), np.concatenate(indices), indptr), shape=near.shape)

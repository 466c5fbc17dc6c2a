"""Fits taste: a truncated singular value decomposition of who liked what, normalised by both degrees.

The strongest few directions are what many users share, so an item's place among them is known from few likes.
Randomised (Halko, Martinsson and Tropp, SIAM Review 2011): some products of the sparse matrix with thin ones.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags

from bentos.inputs import Floats
from bentos.taste import Taste, unit

DIM = 16
SPARE, ROUNDS = 16, 8
"""Directions beyond `DIM` that the search carries along, and how often it goes through the matrix and back."""
LEAST = 1e-6
"""The strongest direction has 1; what is weaker than this is rounding."""
SEED = 7


def fit(liked: csr_matrix, dim: int = DIM) -> Taste:
    """Fit on a 0/1 matrix of users and items, float [users, items]. Fewer directions where there are not so many."""
    of_user = np.maximum(np.asarray(liked.sum(1)).ravel(), 1.0)
    of_item = np.maximum(np.asarray(liked.sum(0)).ravel(), 1.0)
    normal = (diags(of_user**-0.5) @ liked @ diags(of_item**-0.5)).tocsr()
    start = np.random.default_rng(SEED).normal(size=(normal.shape[1], dim + SPARE))
    basis = np.linalg.qr(start)[0]
    for _ in range(ROUNDS):
        basis = np.linalg.qr(normal.T @ (normal @ basis))[0]
    _, strength, within = np.linalg.svd(normal @ basis, full_matrices=False)
    shared = within[:dim][strength[:dim] > LEAST]
    vectors: Floats = (basis @ shared.T).astype(np.float32)
    vectors[np.asarray(liked.sum(0)).ravel() == 0] = 0.0
    return Taste(unit(vectors))

"""Fits the content tower to LightGCN's items, and draws items that few have liked towards what it says of them.

A vector that was learned from two likes is mostly where it began. So each counts as if `PRIOR` more likes had said 0,
and the content's part is what ridge regression can explain of the others (decision 11 has the figures).
"""

from dataclasses import replace

import numpy as np
from scipy.linalg import solve
from scipy.sparse import csr_matrix

from bentos.stages.content import BUCKETS, Tower
from bentos.stages.recall import LightGCN

PRIOR = 20.0
"""Likes after which an item's own vector weighs as much as its content's."""
RIDGE = 60.0
"""Chosen, as `PRIOR`, by `benchmarks.recall.content` on a validation split."""


def fit(
    graph: LightGCN, likes: np.ndarray, said: csr_matrix, prior: float = PRIOR, ridge: float = RIDGE
) -> tuple[LightGCN, Tower]:
    """LightGCN with its items drawn towards their content, and the tower that says where that is.

    `likes` float [n], how many liked each of the graph's items; `said` float32 [n, BUCKETS], see `content.features`.
    """
    own = (likes / (likes + prior)).astype(np.float32)[:, None]
    certain = own * graph.items
    learned = likes > 0
    weights = np.zeros((BUCKETS, graph.items.shape[1]), dtype=np.float32)
    used = np.flatnonzero(said[learned].getnnz(0))
    if len(used):
        x = said[learned][:, used]
        inner = (x.T @ x).toarray() + ridge * np.eye(len(used), dtype=np.float32)
        weights[used] = solve(inner, x.T @ certain[learned], assume_a="pos")
    tower = Tower(weights)
    return replace(graph, items=(certain + (1 - own) * (said @ weights)).astype(np.float32)), tower

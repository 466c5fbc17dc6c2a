"""Fits LightGCN (He et al., SIGIR 2020) without user embeddings: a user is the normalised sum of the items liked.

So folding in a new event or a new user at serving time is the very computation that was trained. The loss is a softmax
over sampled negatives; a user's own positive is taken out of the sum that has to predict it. Where torch has a GPU it
computes there, from the same seeds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from bentos.inputs import Floats
from bentos.stages.recall import LightGCN
from training.parallel import add_up, part

MOST_STEPS = 64
"""In an epoch: every step goes through the whole graph, so a fixed batch would make the cost grow with its square."""
EpochDone = Callable[[int, Tensor], bool]
"""Called after each epoch with its number and the propagated items; True stops the training."""


@dataclass(frozen=True)
class Parameters:
    """Chosen on a validation split inside the training part of MovieLens 100K; see docs/reference/evaluation.md.

    `batch`: pairs of a step; more where an epoch would else have more than `MOST_STEPS`.
    """

    dim: int = 64
    epochs: int = 12
    learning_rate: float = 0.02
    batch: int = 4_096
    negatives: int = 512
    weight_decay: float = 1e-6
    seed: int = 7


class _Propagate(torch.autograd.Function):
    """A sparse matrix times a dense one; the backward pass uses the transpose, kept ready in CSR as well."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ grads[0]


def _tensor(matrix: csr_matrix) -> Tensor:
    with warnings.catch_warnings():  # torch calls its CSR "beta"; all that is used of it is one product
        warnings.filterwarnings("ignore", "Sparse ", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            matrix.shape,
            check_invariants=True,
        )


def device() -> torch.device:
    """The GPU, where there is one that torch can use; `CUDA_VISIBLE_DEVICES=` hides it."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(liked: csr_matrix, parameters: Parameters | None = None, on_epoch: EpochDone | None = None) -> LightGCN:
    """Fit on a 0/1 matrix of users and items, float [users, items]."""
    p = parameters or Parameters()
    torch.manual_seed(p.seed)
    rng = np.random.default_rng(p.seed)
    items, where = liked.shape[1], device()
    of_user = np.maximum(np.asarray(liked.sum(1)).ravel(), 1.0)
    of_item = np.maximum(np.asarray(liked.sum(0)).ravel(), 1.0)
    pairs = liked.tocoo()
    weights = (1.0 / np.sqrt(of_user[pairs.row] * of_item[pairs.col])).astype(np.float32)
    normal = csr_matrix((weights, (pairs.row, pairs.col)), shape=liked.shape)
    forward, backward = _tensor(normal).to(where), _tensor(normal.T.tocsr()).to(where)
    base = nn.Parameter((torch.randn(items, p.dim) * 0.1).to(where))
    scale = nn.Parameter(torch.tensor(5.0, device=where))
    optimizer = torch.optim.AdamW([base, scale], lr=p.learning_rate, weight_decay=p.weight_decay)
    rows, cols, weight = (
        torch.from_numpy(x).to(where) for x in (pairs.row.astype(np.int64), pairs.col.astype(np.int64), weights)
    )

    def propagate() -> tuple[Tensor, Tensor]:
        first = _Propagate.apply(forward, backward, base)
        final = base + _Propagate.apply(backward, forward, first)
        return _Propagate.apply(forward, backward, final), final

    size = max(p.batch, -(-len(rows) // MOST_STEPS))
    for epoch in range(p.epochs):
        order = torch.from_numpy(rng.permutation(len(rows))).to(where)
        for begin in range(0, len(order), size):
            batch = order[begin : begin + size]
            pick = part(batch)
            u, i, w = rows[pick], cols[pick], weight[pick]
            user, item = propagate()
            mine = user[u] - w[:, None] * item[i]
            others = torch.from_numpy(rng.integers(0, items, p.negatives)).to(where)
            positive = (mine * item[i]).sum(1, keepdim=True)
            negative = (mine @ item[others].T).masked_fill(i[:, None] == others[None, :], -1e9)
            scores = scale * torch.cat([positive, negative], 1)
            right = torch.zeros(len(pick), dtype=torch.long, device=where)
            loss = nn.functional.cross_entropy(scores, right, reduction="sum") / len(batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            add_up([base, scale])
            optimizer.step()
        if on_epoch is not None:
            with torch.no_grad():
                if on_epoch(epoch, propagate()[1].cpu()):
                    break
    with torch.no_grad():
        final: Floats = propagate()[1].cpu().numpy().astype(np.float32)
    return LightGCN(final, of_item.astype(np.float32))

"""What the cascade has to beat: popularity, item CF, ALS, EASE and a blend, each with all that is known when asked.

Their parameters are fitted up to the cut; histories and counts are live, as for the cascade.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from bentos.inputs import Floats, History
from bentos.stages.recall import ItemToItem
from training import blend, item_to_item
from training.datasets import Question

Scorer = Callable[[Question], Floats]
"""Scores of all items of the question's matrix, float32 [n]."""
Fitted = tuple[Scorer, float]
"""A fitted model and its size in megabytes."""

NEIGHBOURS = 50
ALS_FACTORS, ALS_ITERATIONS, ALS_REGULARISATION = 64, 15, 0.1
BLEND = blend.Parameters(
    user_power=0.0,
    asked_power=0.5,
    factors=32,
    regularisation=10.0,
    confidence=5.0,
    vectors=1,
    factors_weight=0.4,
    low_pass_weight=0.0,
    threads=1,
)
"""Chosen on the last tenth of the training part of MovieLens 100K, where the low-pass adds nothing."""


def megabytes(*arrays: npt.NDArray[Any]) -> float:
    """The size of a model's arrays."""
    return sum(a.nbytes for a in arrays) / 1e6


def _column(name: str) -> Fitted:
    return lambda question: question.items.column(name).astype(np.float32), 0.0


def _rows(question: Question, known: int) -> npt.NDArray[np.int64]:
    """The user's history as rows that the fitted model knows, newest first."""
    rows = History.of(question.user_values, question.items).rows
    return rows[rows < known]


def _linked(weights: csr_matrix) -> Fitted:
    links = ItemToItem(weights)
    known = links.weights.shape[0]

    def score(question: Question) -> Floats:
        rows = _rows(question, known)
        out = np.zeros(len(question.items), dtype=np.float32)
        out[:known] = links.scores(rows, np.ones((1, len(rows)), dtype=np.float32))[0]
        return out

    return score, megabytes(weights.data, weights.indices, weights.indptr)


def _als(liked: csr_matrix) -> Fitted:
    with threadpool_limits(1, "blas"):  # implicit warns, rightly: its own threads and BLAS' would fight for the cores
        model = AlternatingLeastSquares(
            factors=ALS_FACTORS,
            iterations=ALS_ITERATIONS,
            regularization=ALS_REGULARISATION,
            random_state=7,
            num_threads=1,
        )
        model.fit(liked, show_progress=False)
    known = liked.shape[1]

    def score(question: Question) -> Floats:
        rows = _rows(question, known)
        out = np.zeros(len(question.items), dtype=np.float32)
        if len(rows):
            mine = csr_matrix((np.ones(len(rows), np.float32), rows, [0, len(rows)]), shape=(1, known))
            mine.data[:] = 1.0
            out[:known] = model.item_factors @ model.recalculate_user(0, mine).ravel()
        return out

    return score, megabytes(model.item_factors)


def _blend(liked: csr_matrix) -> Fitted:
    model = blend.fit(liked, BLEND)
    known = liked.shape[1]

    def score(question: Question) -> Floats:
        rows = _rows(question, known)
        out = np.zeros(len(question.items), dtype=np.float32)
        mine = csr_matrix((np.ones(len(rows), np.float32), rows, [0, len(rows)]), shape=(1, known))
        out[:known] = model.scores(mine)[0]
        return out

    return score, model.megabytes


def baselines(liked: csr_matrix) -> dict[str, Callable[[], Fitted]]:
    """What fits each baseline on a 0/1 matrix of users and items, by name."""
    return {
        "popularity": lambda: _column("likes_ever"),
        "popularity, 7 days": lambda: _column("likes_7d"),
        "item CF": lambda: _linked(item_to_item.cosine(liked, NEIGHBOURS)),
        "ALS": lambda: _als(liked),
        "EASE": lambda: _linked(item_to_item.ease(liked)),
        "blend": lambda: _blend(liked),
    }

"""Recall: which few hundred items are worth ranking, from several sources, all live.

Every source scores all items of the bundle from what the user's state holds now, so a known user's newest event and a
new user's first one count at the next request, without training. How the sources' parameters are learned is left to
`training`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from bentos.inputs import Floats, History, Indices, ItemMatrix, interest

SESSION_S = 3_600.0
"""Time constant of the "session" weighting: what was liked an hour ago weighs 1/e of what was liked now."""
NEW_S = 86_400.0
"""An item is new for a day after its first event (or before it has any)."""


@dataclass(frozen=True, eq=False)
class ItemToItem:
    """How much liking one item speaks for another: a sparse [n, n] matrix, rows are what was liked."""

    weights: csr_matrix

    def scores(self, rows: Indices, weights: Floats) -> Floats:
        """Sums over the history under k weightings at once: float32 [k, t] -> [k, n]."""
        k, n = len(weights), self.weights.shape[0]
        if len(rows) == 0:
            return np.zeros((k, n), dtype=np.float32)
        starts = np.arange(k + 1) * len(rows)
        total = csr_matrix((weights.ravel(), np.tile(rows, k), starts), shape=(k, n)) @ self.weights
        scores: Floats = total.toarray()
        return scores


@dataclass(frozen=True, eq=False)
class LightGCN:
    """Item embeddings after propagation, float32 [n, d], and each item's degree in the training graph, float32 [n].

    A user is the normalised sum of the items liked, which is how users take part in training too (no embedding of
    their own), so folding in new events is exact and a new user needs one event. (He et al., SIGIR 2020.)
    """

    items: Floats
    degrees: Floats

    def user(self, rows: Indices, weights: Floats) -> Floats:
        """The embedding of a history, float32 [d]."""
        scale = weights / np.sqrt(np.maximum(self.degrees[rows], 1.0))
        vector: Floats = scale @ self.items[rows] / np.sqrt(max(float(len(rows)), 1.0))
        return vector.astype(np.float32)

    def scores(self, rows: Indices, weights: Floats) -> Floats:
        """Inner products with all items. float32 [n]."""
        if len(rows) == 0:
            return np.zeros(len(self.items), dtype=np.float32)
        return self.items @ self.user(rows, weights)


SOURCES = ("item_to_item", "item_to_item_last", "item_to_item_session", "lightgcn", "trending", "new")
"""The columns of the recall scores, in order. Each is a source of candidates too."""
SHARES = (0.3, 0.15, 0.2, 0.2, 0.1, 0.05)
"""The part of the candidates that each source may name first; what they leave is filled up by the first source."""


@dataclass(frozen=True, eq=False)
class Recall:
    """All sources together. `index` gives the row of an item in the bundle."""

    index: Mapping[str, int]
    item_to_item: ItemToItem
    lightgcn: LightGCN

    def scores(self, values: Mapping[str, Any], items: ItemMatrix, history: History) -> Floats:
        """Every source's score of every item of the matrix, float32 [n, len(SOURCES)]; 0 where one knows nothing."""
        known = items.rows_of(self.index)
        mine = known[history.rows]
        ages, mine = history.ages_s[mine >= 0], mine[mine >= 0]
        last = np.zeros(len(mine), dtype=np.float32)
        last[:1] = 1.0
        ones = np.ones(len(mine), dtype=np.float32)
        weightings = np.stack([ones, last, np.exp(-ages / SESSION_S).astype(np.float32)])
        of_bundle = [*self.item_to_item.scores(mine, weightings), self.lightgcn.scores(mine, ones)]
        out = np.zeros((len(items), len(SOURCES)), dtype=np.float32)
        there = known >= 0
        for j, scores in enumerate(of_bundle):
            out[there, j] = scores[known[there]]
        out[:, 4] = trending(items)
        out[:, 5] = newness(items, interest(values, items))
        return out


def trending(items: ItemMatrix) -> Floats:
    """What is liked lately: likes of the last day, with the last hour's counted eight times and the week's a little."""
    score = heat(items.column("likes_1h"), items.column("likes_24h"), items.column("likes_7d"))
    return np.asarray(score, dtype=np.float32)


def heat(hour: Any, day: Any, week: Any) -> Any:
    """From likes of these windows, numbers or arrays: what `trending` orders by."""
    return np.log1p(8 * hour + day + 0.1 * week)


def newness(items: ItemMatrix, interest_in: Floats) -> Floats:
    """How well items of the last day (or without any event) fit the interest. 0 for all others."""
    ages, likes = items.column("age_s"), items.column("likes_ever")
    new = (ages < NEW_S) | (likes == 0)
    fit = items.categories @ interest_in + 0.1
    return np.where(new, fit / (1.0 + items.column("impressions_7d") / 50.0), 0.0).astype(np.float32)


def candidates(scores: Floats, allowed: npt.NDArray[np.bool_], size: int) -> tuple[Indices, list[tuple[str, ...]]]:
    """The union of the sources' best, at most `size` rows, and the names of the sources that named each.

    Ties are broken by the order of the matrix, which is the order in which items were first seen.
    """
    named: dict[int, list[str]] = {}
    orders = []
    for j, source in enumerate(SOURCES):
        column = np.where(allowed & (scores[:, j] > 0), scores[:, j], -np.inf)
        top = min(len(column), size)
        best = np.argpartition(-column, top - 1)[:top] if top < len(column) else np.arange(len(column))
        best = best[np.lexsort((best, -column[best]))]
        order = best[np.isfinite(column[best])].tolist()
        orders.append(order)
        for row in order[: max(1, round(SHARES[j] * size))]:
            named.setdefault(row, []).append(source)
    rest = [*orders[0], *orders[4], *np.flatnonzero(allowed).tolist()]
    for row in rest:
        if len(named) >= size:
            break
        named.setdefault(row, ["fill"])
    rows = list(named)[:size]
    return np.array(rows, dtype=np.int64), [tuple(named[row]) for row in rows]

"""Recall: which few hundred items are worth ranking, from several sources, all live.

Every source scores all items of the bundle from what the user's state holds now, so a known user's newest event and a
new user's first one count at the next request, without training. How the sources' parameters are learned is left to
`training`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from bentos.inputs import Floats, History, Indices, ItemMatrix, interest
from bentos.stages.content import Tower
from bentos.stages.nearest import Nearest, products

SESSION_S = 3_600.0
"""Time constant of the "session" weighting: what was liked an hour ago weighs 1/e of what was liked now."""
NEW_S = 86_400.0
"""An item is new for a day after its first event (or before it has any)."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What one source says of the items: float32 [m] for the ascending `rows` of the matrix, 0 for all others.

    `rows` None: of every row. `order`, where it is known before the question: the rows with a score, best first.
    """

    values: Floats
    rows: Indices | None = None
    order: Indices | None = None

    def best(self, allowed: npt.NDArray[np.bool_], size: int) -> Indices:
        """The best `size` rows that are allowed and score above 0, best first; ties in the order of the matrix."""
        if self.order is not None:
            return _first(self.order, allowed, size)
        near, rows = self._above(2 * size, allowed)
        if len(rows) < size:  # nearly always they are among the best of all
            near, rows = self._above(len(self.values), allowed)
        best: Indices = rows[np.argsort(-near, kind="stable")[:size]]
        return best

    def _above(self, count: int, allowed: npt.NDArray[np.bool_]) -> tuple[Floats, Indices]:
        """Of the best `count` and some more, all that score as much: those above 0 and allowed. Their rows ascend."""
        least = np.float32(0) if count >= len(self.values) else _least(self.values, count)
        at = np.flatnonzero(self.values >= least if least > 0 else self.values > 0)
        rows = at if self.rows is None else self.rows[at]
        may = allowed[rows]
        return self.values[at[may]], rows[may]

    def of(self, rows: Indices) -> Floats:
        """The scores of these rows. float32 [len(rows)]."""
        return of_each([self], rows)[:, 0]

    def dense(self, n: int) -> Floats:
        """The scores of all n rows. float32 [n]."""
        return self.of(np.arange(n))


@dataclass(frozen=True, eq=False)
class Products:
    """What LightGCN says: the inner products of the user with all items, computed only of those that are asked for."""

    graph: "LightGCN"
    user: Floats

    def best(self, allowed: npt.NDArray[np.bool_], size: int) -> Indices:
        """See `Scores.best`."""
        if not Nearest.usable:
            return Scores(self.dense(len(allowed))).best(allowed, size)
        rows, found = self.graph.nearest.best(self.user, allowed, size)
        return Scores(found, rows).best(allowed, size)

    def of(self, rows: Indices) -> Floats:
        """See `Scores.of`."""
        return products(self.graph.items, rows, self.user)

    def dense(self, n: int) -> Floats:
        """See `Scores.dense`."""
        return self.graph.items @ self.user


Source = Scores | Products


def of_each(scores: Sequence[Source], rows: Indices) -> Floats:
    """What each source says of these rows. float32 [len(rows), len(scores)].

    They are looked up once for all sources that share their rows, as those of item-to-item do.
    """
    out = np.zeros((len(rows), len(scores)), dtype=np.float32)
    places: dict[int, tuple[Indices, npt.NDArray[np.bool_]]] = {}
    for j, source in enumerate(scores):
        if isinstance(source, Products):
            out[:, j] = source.of(rows)
            continue
        named = source.rows
        if named is None:
            out[:, j] = source.values[rows]
        elif len(named):
            if id(named) not in places:
                at = np.searchsorted(named, rows)
                at[at == len(named)] = 0
                places[id(named)] = at, named[at] == rows
            at, here = places[id(named)]
            out[here, j] = source.values[at[here]]
    return out


def _least(values: Floats, count: int) -> Any:
    """What the best `count` values score at least. Of many the best of each 64 tell nearly as much, for a tenth."""
    of = values[: len(values) // 64 * 64].reshape(-1, 64).max(1) if len(values) > 256 * count else values
    return np.partition(of, -count)[-count]


def _first(order: Indices, allowed: npt.NDArray[np.bool_], size: int) -> Indices:
    """The first `size` of an order that are allowed; nearly always they are near its beginning."""
    near = order[: 4 * size]
    found = near[allowed[near]][:size]
    return found if len(found) == size else order[allowed[order]][:size]


@dataclass(frozen=True, eq=False)
class ItemToItem:
    """How much liking one item speaks for another: a sparse [n, n] matrix, rows are what was liked."""

    weights: csr_matrix

    def scores(self, rows: Indices, weights: Floats) -> Floats:
        """Sums over the history under k weightings at once: float32 [k, t] -> [k, n]."""
        k = len(weights)
        starts = np.arange(k + 1) * len(rows)
        asked = csr_matrix((weights.ravel(), np.tile(rows, k), starts), shape=(k, self.weights.shape[0]))
        scores: Floats = (asked @ self.weights).toarray()
        return scores

    def among(self, places: Indices, size: int, rows: Indices, weights: Floats) -> tuple[Indices, Floats]:
        """The same sums, of what the history links to: ascending places int64 [m] and their sums float32 [k, m].

        `places`: int64 [n], where each item is among `size` others, -1 where it is not. Costs what the history's links
        are, however many items there are.
        """
        starts = self.weights.indptr[rows].astype(np.int64)
        counts = self.weights.indptr[rows + 1] - starts
        links = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        to = places[self.weights.indices[links]]
        reached = np.zeros(size + 1, dtype=bool)
        reached[to] = True
        found = np.flatnonzero(reached[:-1])
        at = np.empty(size + 1, dtype=np.int64)
        at[found], at[-1] = np.arange(len(found)), len(found)
        sums = np.zeros((len(weights), len(found) + 1), dtype=np.float32)
        for total, terms in zip(sums, np.repeat(weights, counts, 1) * self.weights.data[links], strict=True):
            np.add.at(total, at[to], terms)  # one after the other, as the matrix product does it: the same bits
        return found, sums[:, :-1]


@dataclass(frozen=True, eq=False)
class LightGCN:
    """Item embeddings after propagation, float32 [n, d], and each item's degree in the training graph, float32 [n].

    A user is the normalised sum of the items liked, which is how users take part in training too (no embedding of
    their own), so folding in new events is exact and a new user needs one event. (He et al., SIGIR 2020.)
    """

    items: Floats
    degrees: Floats

    @cached_property
    def nearest(self) -> Nearest:
        """Finds the items with the largest products."""
        return Nearest(self.items)

    def user(self, rows: Indices, weights: Floats) -> Floats:
        """The embedding of a history, float32 [d]; 0 without one."""
        scale = weights / np.sqrt(np.maximum(self.degrees[rows], 1.0))
        vector: Floats = scale @ self.items[rows] / np.sqrt(max(float(len(rows)), 1.0))
        return vector.astype(np.float32)

    def scores(self, rows: Indices, weights: Floats) -> Floats:
        """Inner products with all items. float32 [n]."""
        return self.items @ self.user(rows, weights)


SOURCES = ("item_to_item", "item_to_item_last", "item_to_item_session", "lightgcn", "trending", "new")
"""The columns of the recall scores, in order. Each is a source of candidates too."""
SHARES = (0.3, 0.15, 0.2, 0.2, 0.1, 0.05)
"""The part of the candidates that each source may name first."""
FILL = ("item_to_item", "trending")
"""The sources that fill up what all of them leave, one after the other."""
_NAMES = [
    tuple(source for j, source in enumerate(SOURCES) if named >> j & 1) or ("fill",)
    for named in range(1 << len(SOURCES))
]
"""Which sources named an item, by the sum of their powers of two; none did where it fills up."""


@dataclass(frozen=True, eq=False)
class Recall:
    """All sources together. `index` gives the row of an item in the bundle; `tower` LightGCN's vector of any other."""

    index: Mapping[str, int]
    item_to_item: ItemToItem
    lightgcn: LightGCN
    tower: Tower

    def graph(self, items: ItemMatrix) -> LightGCN:
        """LightGCN over the rows of the matrix: an item that it has not learned is where its content puts it."""
        learned: LightGCN = items.derive(self.lightgcn, lambda: self._graph(items))
        return learned

    def known(self, items: ItemMatrix) -> Indices:
        """For each row of the matrix its row in the bundle, -1 where that does not know it. int64 [n]."""
        return self._rows(items)[0]

    def _rows(self, items: ItemMatrix) -> tuple[Indices, Indices]:
        """The same, and for each row of the bundle its row in the matrix, -1 where that does not have it."""

        def make() -> tuple[Indices, Indices]:
            known = np.array([self.index.get(i, -1) for i in items.ids], dtype=np.int64)
            places = np.full(len(self.index), -1, dtype=np.int64)
            there = np.flatnonzero(known >= 0)
            places[known[there]] = there
            return known, places

        rows: tuple[Indices, Indices] = items.derive(self, make)
        return rows

    def _graph(self, items: ItemMatrix) -> LightGCN:
        known = self.known(items)
        degrees = np.where(known >= 0, self.lightgcn.degrees[known], np.float32(1))
        return LightGCN(self.tower.complete(self.lightgcn.items, known, items), degrees)

    def scores(self, values: Mapping[str, Any], items: ItemMatrix, history: History) -> list[Source]:
        """What each of `SOURCES` says of the items of the matrix."""
        known, places = self._rows(items)
        mine = known[history.rows]
        ages, mine = history.ages_s[mine >= 0], mine[mine >= 0]
        last = np.zeros(len(mine), dtype=np.float32)
        last[:1] = 1.0
        ones = np.ones(len(history.rows), dtype=np.float32)
        weightings = np.stack([ones[: len(mine)], last, np.exp(-ages / SESSION_S).astype(np.float32)])
        linked, sums = self.item_to_item.among(places, len(items), mine, weightings)
        graph = self.graph(items)
        close = Products(graph, graph.user(history.rows, ones))
        heats = items.once("trending", lambda: _ordered(trending(items)))
        return [*(Scores(of, linked) for of in sums), close, heats, newness(items, interest(values, items))]


def _ordered(values: Floats) -> Scores:
    order = np.argsort(-values, kind="stable")
    return Scores(values, order=order[values[order] > 0])


def trending(items: ItemMatrix) -> Floats:
    """What is liked lately: likes of the last day, with the last hour's counted eight times and the week's a little."""
    score = heat(items.column("likes_1h"), items.column("likes_24h"), items.column("likes_7d"))
    return np.asarray(score, dtype=np.float32)


def heat(hour: Any, day: Any, week: Any) -> Any:
    """From likes of these windows, numbers or arrays: what `trending` orders by."""
    return np.log1p(8 * hour + day + 0.1 * week)


def newness(items: ItemMatrix, interest_in: Floats) -> Scores:
    """How well items of the last day (or without any event) fit the interest."""
    rows, of_set, damped = new_items(items)
    fit = items.category_sets[0] @ interest_in + np.float32(0.1)
    return Scores(fit[of_set] / damped, rows)


def new_items(items: ItemMatrix) -> tuple[Indices, Indices, Floats]:
    """The rows of new items, their sets of categories, and by how much having been shown divides their scores."""
    found: tuple[Indices, Indices, Floats] = items.once("new", lambda: _new(items))
    return found


def is_new(items: ItemMatrix) -> npt.NDArray[np.bool_]:
    """Which rows are items of the last day, or that nobody has liked. bool [n]."""
    new: npt.NDArray[np.bool_] = (items.column("age_s") < NEW_S) | (items.column("likes_ever") == 0)
    return new


def _new(items: ItemMatrix) -> tuple[Indices, Indices, Floats]:
    rows = np.flatnonzero(is_new(items))
    shown = 1.0 + items.column("impressions_7d")[rows] / 50.0
    return rows, items.category_sets[1][rows], shown.astype(np.float32)


def candidates(
    scores: Sequence[Source], allowed: npt.NDArray[np.bool_], size: int
) -> tuple[Indices, list[tuple[str, ...]]]:
    """The union of the sources' best, at most `size` rows, and the names of the sources that named each.

    Ties are broken by the order of the matrix, which is the order in which items were first seen.
    """
    parts = [max(1, round(share * size)) for share in SHARES]
    most = [size if source in FILL else part for source, part in zip(SOURCES, parts, strict=True)]
    orders = [of.best(allowed, n) for of, n in zip(scores, most, strict=True)]
    named = [order[:part] for order, part in zip(orders, parts, strict=True)]
    marks = np.repeat(1 << np.arange(len(SOURCES)), [len(some) for some in named])
    rows = np.concatenate([*named, *(orders[SOURCES.index(source)] for source in FILL)])
    found, first, place = np.unique(rows, return_index=True, return_inverse=True)
    if len(found) < size:  # nearly always the sources name enough
        rows = np.append(rows, np.flatnonzero(allowed))
        found, first, place = np.unique(rows, return_index=True, return_inverse=True)
    by = np.bincount(place[: len(marks)], marks, len(found)).astype(np.int64)
    order = np.argsort(first)[:size]
    return found[order], [_NAMES[of] for of in by[order].tolist()]

"""The cascade: recall, rank, re-rank, explain. Pure computation; serving and evaluation run this same code.

Where the user's values and the item matrix come from, and what is done with the answer, is left to `bentos.service`
and `training.evaluation`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bentos.inputs import Floats, History, Indices, ItemMatrix, candidate_rows
from bentos.stages.content import Tower
from bentos.stages.explain import Because, because
from bentos.stages.explore import Draw, explore
from bentos.stages.exposure import placed, tail
from bentos.stages.rank import PLAIN, Calibration, Din, Ranked, probabilities, rank
from bentos.stages.recall import Recall, candidates, of_each
from bentos.stages.rerank import Reranker, diversify, moved, towards_conversion
from bentos.stages.rules import NONE, Rules
from bentos.stages.session import tilt
from bentos.taste import Taste, unit

HISTORY = 50
"""Items of the history that ranking attends to."""


@dataclass(frozen=True)
class Ask:
    """One question. `user_values` are all columns of the user profile at `at`; defaults for a user never seen.

    `exclude` are items that must not come; bought items never do. `repeat` allows items of the liked history.
    `categories` restricts to items with at least one of them. `rules` are the house's. `explore` is the share of the
    answer's places that are explored; it needs `dice`. `unborn`: rows of items that are not there yet, where it is a
    question of the past.
    """

    user_id: str
    user_values: Mapping[str, Any]
    items: ItemMatrix
    k: int = 20
    exclude: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    repeat: bool = False
    rules: Rules = NONE
    explore: float = 0.0
    dice: np.random.Generator | None = None
    unborn: Indices | None = None

    @cached_property
    def history(self) -> History:
        """What the user liked lately, as rows of the items."""
        return History.of(self.user_values, self.items)


@dataclass(frozen=True)
class Pick:
    """One item of an answer. `row` is its row in the item matrix; `sources` name it in recall.

    `probability`: that it is what the user likes next, by ranking, and `conversion`: that this leads to a conversion;
    None where ranking did not see it. `propensity`: that it came to be in this place, where the place was explored.
    """

    item_id: str
    row: int
    score: float
    sources: tuple[str, ...]
    because: Because
    probability: float | None = None
    conversion: float | None = None
    propensity: float | None = None


@dataclass(frozen=True)
class Answer:
    """The best `k` items, best first. `stages_ms`: recall, rank, rerank, total, in milliseconds.

    `skipped`: the stages that were left out as the time was up: "rank" (and re-rank with it) or "rerank". `explored`:
    how the places that explore were filled.
    """

    picks: list[Pick]
    candidates: int
    stages_ms: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None
    explored: list[Draw] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Features:
    """What the stages after recall see of one question: m candidates, t history items.

    `rows` int64 [m] in the matrix; `inputs` float32 [m, f]; `vectors` float32 [m, d] and `history` float32 [t, d]
    are item vectors; `ages_s` float32 [t].
    """

    rows: Indices
    sources: list[tuple[str, ...]]
    inputs: Floats
    vectors: Floats
    history: Floats
    ages_s: Floats
    liked: History


def allowed(ask: Ask) -> npt.NDArray[np.bool_]:
    """Which rows of the matrix may be recommended at all. bool [n]."""
    items, values = ask.items, ask.user_values
    out = np.ones(len(items), dtype=bool)
    if ask.categories:
        columns = [j for j, c in enumerate(items.category_names) if c in ask.categories]
        out &= items.categories[:, columns].any(1) if columns else False
    if ask.rules is not NONE:
        out &= ~ask.rules.hidden(items)
    out[[row for i in (*ask.exclude, *values["bought"]) if (row := items.index.get(i)) is not None]] = False
    if not ask.repeat:
        out[ask.history.rows] = False
    if ask.unborn is not None:
        out[ask.unborn] = False
    return out


def explored(ask: Ask, rows: Indices, likely: Floats, taken: Indices) -> list[Draw]:
    """How the places that explore are filled: the last ones that pins leave, and none at the answer's top.

    A house cap on categories bars what has one of the categories that are full already; a share for the tail bars the
    head.
    """
    if ask.dice is None or len(taken) < 2:
        return []
    count = int(ask.explore * len(taken) + ask.dice.random())  # a share of half a place is every other answer's
    first = max(1, len(taken) - len(ask.rules.pin) - count)
    places = list(range(first, first + count))
    if not places:
        return []
    kept = np.delete(taken, places)
    if ask.rules.most_per_category is not None:
        full = ask.items.categories[kept].sum(0) + count > ask.rules.most_per_category
        open_ = ~(ask.items.categories[rows][:, full] > 0).any(1)
        rows, likely = rows[open_], likely[open_]
    if ask.rules.least_tail_exposure:
        open_ = tail(ask.items)[rows]
        rows, likely = rows[open_], likely[open_]
    return explore(ask.items, rows, likely, taken, places, ask.dice)


def popular(ask: Ask) -> list[Pick]:
    """The baseline and the last fallback: what was liked most in seven days, then ever; ties by the matrix' order."""
    liked = ask.items.column("likes_7d") + 1e-6 * ask.items.column("likes_ever")
    score = np.where(allowed(ask), liked, -np.inf)
    order = np.argsort(-score, kind="stable")[: ask.k]
    reason = Because("trending", None, 0.0)
    return [
        Pick(ask.items.ids[row], row, float(score[row]), ("trending",), reason)
        for row in order.tolist()
        if np.isfinite(score[row])
    ]


def pinned(picks: list[Pick], ask: Ask) -> list[Pick]:
    """The picks with the house's pins at their positions, wherever they may come at all. At most `k` of them."""
    if not ask.rules.pin:
        return picks
    may, index = allowed(ask), ask.items.index
    pins = [(p, row) for p in ask.rules.pin if (row := index.get(p.item_id)) is not None and may[row]]
    rows = {row for _, row in pins}
    out = [pick for pick in picks if pick.row not in rows]
    for pin, row in sorted(pins, key=lambda pair: pair[0].position):
        out.insert(pin.position - 1, Pick(pin.item_id, row, 0.0, ("pinned",), Because("pinned", None, 0.0)))
    return out[: ask.k]


@dataclass(frozen=True, eq=False)
class Cascade:
    """The stages of one bundle.

    `vectors`: float32 [bundle items, d] for ranking, their lengths left aside; `tower` makes those of later items.
    """

    recall: Recall
    vectors: Floats
    tower: Tower
    taste: Taste
    din: Din
    reranker: Reranker
    size: int = 300
    diversity: float = 0.0
    calibration: Calibration = PLAIN

    def item_vectors(self, items: ItemMatrix) -> Floats:
        """A vector of length 1 for every item of the matrix, float32 [n, d]."""
        return unit(self.tower.complete(self.vectors, self.recall.known(items), items))

    def tastes(self, items: ItemMatrix) -> Floats:
        """A vector of length 1, or 0, for every item of the matrix, float32 [n, e]."""
        vectors: Floats = items.derive(self.taste, lambda: self.taste.vectors(items, self.recall.known(items)))
        return vectors

    def features(self, ask: Ask) -> Features:
        """Recall, and the inputs of the stages after it."""
        items, values = ask.items, ask.user_values
        history = ask.history
        scores = self.recall.scores(values, items, history)
        rows, sources = candidates(scores, allowed(ask), self.size)
        recalled = of_each(scores, rows)
        inputs = candidate_rows(values, items, history, rows, self.tastes(items), recalled)
        liked = History(history.rows[:HISTORY], history.ages_s[:HISTORY])
        vectors: Floats = items.derive(self, lambda: self.item_vectors(items))
        return Features(rows, sources, inputs, vectors[rows], vectors[liked.rows], liked.ages_s, liked)

    def order(self, ask: Ask, f: Features, ranked: Ranked) -> tuple[Indices, Floats]:
        """Re-rank, and by the session: the best `k` candidates, best first, int64 [<= k]; all scores, float32 [m]."""
        scores = self.reranker.scores(np.concatenate([f.inputs, ranked.logits[:, None]], 1))
        scores = moved(scores, ranked, tilt(ask.user_values, ask.items, ask.history, f.rows, self.tastes(ask.items)))
        categories, rules = ask.items.categories[f.rows], ask.rules
        if rules.conversion_weight:
            scores = towards_conversion(scores, ranked, rules.conversion_weight)
        if rules.leans:
            scores = scores + rules.gains(ask.items, f.rows) * np.float32(scores.std() or 1.0)
        most, least = rules.most_per_category, rules.least_tail_exposure
        if most is None and not least:
            return diversify(scores, categories, ask.k, self.diversity), scores
        various = diversify(scores, categories, 3 * ask.k, self.diversity)
        others = np.setdiff1d(np.arange(len(scores)), various)
        order = np.concatenate([various, others[np.argsort(-scores[others], kind="stable")]])
        of_tail = tail(ask.items)[f.rows[order]]
        return order[placed(of_tail, categories[order], ask.k, least, most)], scores

    def recommend(self, ask: Ask, late: Callable[[], bool] = lambda: False) -> Answer:
        """Answer one question. Deterministic: equal scores keep the order in which recall named them.

        `late` is asked after each stage; once it says so, what is there is the answer.
        """
        start = perf_counter()
        f = self.features(ask)
        recalled = perf_counter()
        if len(f.rows) == 0:
            return Answer([], 0, _stages(start, recalled, recalled))
        if late():
            return Answer(_recalled(ask, f), len(f.rows), _stages(start, recalled, recalled), "rank")
        ranked = rank(self.din, f.inputs, f.vectors, f.history, f.ages_s)
        logits, done = ranked.logits, perf_counter()
        skipped = "rerank" if late() else None
        order, scores = (np.argsort(-logits, kind="stable")[: ask.k], logits) if skipped else self.order(ask, f, ranked)
        likely, converts = probabilities(logits, self.calibration), expit(ranked.conversion)
        interests = dict(zip(ask.user_values["interest"], ask.user_values["interest_weight"], strict=True))

        def pick(i: int) -> Pick:
            reason = because(ranked.attention[i], f.liked, ask.items, row := int(f.rows[i]), f.sources[i], interests)
            chances = float(likely[i]), float(converts[i])
            return Pick(ask.items.ids[row], row, float(scores[i]), f.sources[i], reason, *chances)

        picks = [pick(i) for i in order.tolist()]
        draws = explored(ask, f.rows, likely, f.rows[order])
        for draw in draws:
            row = int(draw.rows[draw.chosen])
            new = pick(int(np.flatnonzero(f.rows == row)[0]))
            picks[draw.position] = replace(
                new, sources=(*new.sources, "explore"), propensity=float(draw.propensity[draw.chosen])
            )
        return Answer(picks, len(f.rows), _stages(start, recalled, done), skipped, draws)


def _recalled(ask: Ask, f: Features) -> list[Pick]:
    """The candidates in the order in which recall named them."""
    first = [(int(row), sources) for row, sources in zip(f.rows[: ask.k], f.sources, strict=False)]
    return [
        Pick(
            ask.items.ids[row],
            row,
            -float(n),
            sources,
            Because("new" if sources == ("new",) else "trending", None, 0.0),
        )
        for n, (row, sources) in enumerate(first)
    ]


def _stages(start: float, recalled: float, ranked: float) -> dict[str, float]:
    end = perf_counter()
    spans = {"recall": recalled - start, "rank": ranked - recalled, "rerank": end - ranked, "total": end - start}
    return {name: round(seconds * 1_000, 3) for name, seconds in spans.items()}

"""One protocol for every model: global time split, all items ranked, stable ties.

*Static* asks once for each known user, at the cut, for everything liked after it. *Prequential* asks just before each
liked interaction after the cut, with features live and models frozen. Items that the user had an opinion of by then,
and items that were not there yet, are left out, for every model alike. Equal scores keep the catalogue's order. The
metrics are trec_eval's (pytrec_eval); docs/reference/evaluation.md states the protocol in full.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import pytrec_eval

from bentos.cascade import Ask, Cascade
from bentos.inputs import Floats, History
from bentos.stages.rank import probabilities, rank
from bentos.stages.recall import SOURCES
from training.baselines import Scorer
from training.calibration import Reliability
from training.datasets import Question
from training.intervals import Bootstrap, Interval
from training.shown import Shown
from training.slices import slices

K = 20
MEASURES = {
    **{f"HR@{k}": f"success_{k}" for k in (5, 10, 20)},
    **{f"NDCG@{k}": f"ndcg_cut_{k}" for k in (5, 10, 20)},
    **{f"Recall@{k}": f"recall_{k}" for k in (5, 10, 20)},
    "MRR@20": "recip_rank",
    "MAP@20": "map",
}
"""Our name -> trec_eval's. Answers end at `K`, so its uncut measures are cut there."""
MAIN = "NDCG@10"
"""The measure that decides, with its interval and its differences."""
_TREC = {"success.5,10,20", "ndcg_cut.5,10,20", "recall.5,10,20", "recip_rank", "map"}

Answers = dict[str, tuple[list[str], float]]
"""By model: its best `K` item ids, best first, and the seconds they took."""
Panel = Callable[[Question], Answers]
"""One or more models that share work, put to a question together."""
RANKED, WHOLE = "recall + DIN", "cascade"


@dataclass(frozen=True)
class Result:
    """One row of the table: a model under a protocol.

    `interval` is that of NDCG@10, `behind` that of the cascade's NDCG@10 over the model's, question by question (None
    for the cascade itself). `beyond` holds what is not accuracy, `slices` the questions and NDCG@10 of each slice.
    """

    model: str
    protocol: str
    questions: int
    metrics: dict[str, float]
    interval: Interval
    behind: Interval | None
    beyond: dict[str, float]
    slices: dict[str, tuple[int, float]]
    training_s: float
    inference_ms: float
    size_mb: float

    def flat(self) -> dict[str, Any]:
        """The row as plain columns."""
        row = asdict(self)
        return {**{k: v for k, v in row.items() if k not in ("metrics", "beyond")}, **self.metrics, **self.beyond}


def ranked(name: str, scores: Scorer) -> Panel:
    """A model that orders all items by score."""

    def best(question: Question) -> Answers:
        start, items = perf_counter(), question.items
        score = scores(question).astype(np.float64)
        score[[row for i in question.seen if (row := items.index.get(i)) is not None]] = -np.inf
        score[question.unborn] = -np.inf
        order = np.argsort(-score, kind="stable")[:K]
        ids = [items.ids[row] for row in order.tolist() if np.isfinite(score[row])]
        return {name: (ids, perf_counter() - start)}

    return best


def ask(question: Question, k: int = K) -> Ask:
    """The question as it is put to the cascade."""
    return Ask(question.user_id, question.user_values, question.items, k, question.seen, unborn=question.unborn)


def source(cascade: Cascade, j: int) -> Panel:
    """One source of recall alone, over all items."""

    def score(question: Question) -> Floats:
        history = History.of(question.user_values, question.items)
        return cascade.recall.scores(question.user_values, question.items, history)[j].dense(len(question.items))

    return ranked(f"recall: {SOURCES[j]}", score)


def staged(cascade: Cascade, reliability: Reliability | None = None) -> Panel:
    """The cascade stopped after ranking, and the whole of it; `reliability` hears what its probabilities were."""

    def answers(question: Question) -> Answers:
        start, asked = perf_counter(), ask(question)
        f = cascade.features(asked)
        if len(f.rows) == 0:
            return {RANKED: ([], perf_counter() - start), WHOLE: ([], perf_counter() - start)}
        said = rank(cascade.din, f.inputs, f.vectors, f.history, f.ages_s)
        logits = said.logits
        by_rank = np.argsort(-logits, kind="stable")[:K]
        between = perf_counter()
        order, _ = cascade.order(asked, f, said)
        end = perf_counter()
        if reliability is not None:
            by_logit, ids = np.argsort(-logits, kind="stable"), question.items.ids
            came = np.array([ids[row] in question.positives for row in f.rows[by_logit].tolist()], dtype=np.float32)
            reliability.add(probabilities(logits, cascade.calibration)[by_logit], came)
        best, whole = ([question.items.ids[row] for row in f.rows[some].tolist()] for some in (by_rank, order))
        return {RANKED: (best, between - start), WHOLE: (whole, end - start)}

    return answers


def whole(cascade: Cascade, name: str) -> Panel:
    """A cascade as it serves, under a name of its own."""

    def answers(question: Question) -> Answers:
        start = perf_counter()
        best = [pick.item_id for pick in cascade.recommend(ask(question)).picks]
        return {name: (best, perf_counter() - start)}

    return answers


@dataclass
class Scoreboard:
    """Puts questions to models, one pass for all of them, and keeps what they answered."""

    protocol: str
    panels: Sequence[Panel]
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    runs: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    items: int = 0
    users: list[str] = field(default_factory=list)
    """Who asked each question."""
    slices: list[list[str]] = field(default_factory=list)
    shown: dict[str, Shown] = field(default_factory=dict)

    def put(self, question: Question) -> None:
        """Put a question to every model."""
        name = f"q{len(self.qrels)}"
        self.qrels[name] = dict.fromkeys(question.positives, 1)
        self.items = max(self.items, len(question.items))
        self.users.append(question.user_id)
        self.slices.append(slices(question))
        for panel in self.panels:
            for model, (best, seconds) in panel(question).items():
                self.spent[model] = self.spent.get(model, 0.0) + seconds
                self.runs.setdefault(model, {})[name] = {item_id: float(K - r) for r, item_id in enumerate(best)}
                self.shown.setdefault(model, Shown()).add(question.items, best)

    def results(self, training_s: Mapping[str, float], size_mb: Mapping[str, float]) -> list[Result]:
        """One row a model. Raises `ValueError` when no question was asked."""
        if not self.qrels:
            raise ValueError(
                f"{self.protocol}: no question to ask; the data after the cut holds nothing that was liked"
            )
        scores, draws = {model: self._scores(model) for model in self.runs}, Bootstrap(self.users)
        out = []
        for model, mine in scores.items():
            compared = WHOLE in scores and model != WHOLE
            behind = draws.difference(scores[WHOLE][MAIN], mine[MAIN]) if compared else None
            out.append(
                Result(
                    model,
                    self.protocol,
                    len(self.qrels),
                    {name: sum(values) / len(values) for name, values in mine.items()},
                    draws.interval(mine[MAIN]),
                    behind,
                    self.shown[model].measures(self.items),
                    self._sliced(mine[MAIN]),
                    training_s.get(model, 0.0),
                    self.spent[model] / len(self.qrels) * 1_000,
                    size_mb.get(model, 0.0),
                )
            )
        return out

    def _scores(self, model: str) -> dict[str, list[float]]:
        """Each measure of each question, in their order."""
        found = pytrec_eval.RelevanceEvaluator(self.qrels, _TREC).evaluate(self.runs[model])
        return {name: [found.get(q, {}).get(key, 0.0) for q in self.qrels] for name, key in MEASURES.items()}

    def _sliced(self, values: Sequence[float]) -> dict[str, tuple[int, float]]:
        parts: dict[str, list[float]] = {}
        for names, value in zip(self.slices, values, strict=True):
            for name in names:
                parts.setdefault(name, []).append(value)
        return {name: (len(part), sum(part) / len(part)) for name, part in sorted(parts.items())}

    def difference(self, model: str, other: str) -> Interval:
        """Of the main measure, question by question."""
        return Bootstrap(self.users).difference(self._scores(model)[MAIN], self._scores(other)[MAIN])

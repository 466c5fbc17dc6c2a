"""Trains everything and registers one bundle: read, split by time, fit stage by stage, evaluate, sign, register.

The stages after recall learn from lists of a recall that has not seen their labels: it is fitted on the first part of
the training data, the lists are asked in the second, the last tenth decides between models. Then recall is fitted again
on all of it. Nothing looks beyond the cut before the evaluation.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bentos import bundle
from bentos.cascade import Cascade
from bentos.inputs import ITEM_COLUMNS, USER_COLUMNS, Floats, input_names
from bentos.stages.recall import SOURCES, Recall
from bentos.stages.rerank import LambdaRank
from freshet.settings import Settings
from streams.catalogue import Progress, read_catalogue
from streams.events import Micros
from training import item_to_item, lightgcn, rankers, registry
from training.baselines import baselines
from training.datasets import Asking, Log, NoData, Question, asked_before, audit, feature_store, questions, read_log
from training.evaluation import Model, Result, Scoreboard, ask, ranked, stages
from training.rankers import Fitted, Listing

SPLIT = 0.8
INNER, HELD = 0.75, 0.9
"""Parts of the training data: recall is fitted up to `INNER`, ranking up to `HELD`, the rest validates."""
TRAIN_QUESTIONS, HELD_QUESTIONS, AUDITED = 5_000, 1_500, 200
SEED = 7
LEAST_LIKED = 1_000
"""Below this many liked interactions nothing that is fitted can be told from chance."""
PROTOCOLS = ("static", "prequential")


@dataclass(frozen=True)
class TrainReport:
    """What a training gave. `version` is the registered bundle's; `seconds` by step."""

    results: list[Result]
    validation: dict[str, float]
    reranker: str
    version: str | None
    seconds: dict[str, float]
    audited: int
    liked: int
    cut: Micros


@dataclass
class _Clock:
    """Times steps by name and tells of their progress."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        start = perf_counter()

        def tell(done: int) -> None:
            if self.progress is not None:
                self.progress(name, done, total)

        tell(0)
        yield tell
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start
        if total is not None:
            tell(total)


def train(
    settings: Settings,
    *,
    split: float = SPLIT,
    protocols: Sequence[str] = PROTOCOLS,
    most_questions: int = 20_000,
    register: bool = True,
    threads: int = 2,
    progress: Progress | None = None,
) -> TrainReport:
    """Train, evaluate and (unless told not to) register a bundle and make it champion.

    `most_questions` bounds the prequential questions; beyond it an even sample is asked. Raises `NoData` when there is
    too little to learn from, `datasets.Skew` when training and Feast disagree on a value.
    """
    key = settings.signing_key()
    torch.set_num_threads(threads)
    clock = _Clock(progress)
    with clock.step("read"):
        catalogue = asyncio.run(read_catalogue(settings))
        log = read_log(settings, sorted(catalogue, key=_natural))
        categories = {item_id: item.categories for item_id, item in catalogue.items()}
        store = feature_store(settings)
    if int(log.liked.sum()) < LEAST_LIKED:
        raise NoData(
            f"{int(log.liked.sum())} liked interactions are archived, at least {LEAST_LIKED} are needed: "
            "send more events, or try `freshet simulate` or `freshet replay movielens`"
        )

    def asking(some: Sequence[Asking], name: str) -> Iterator[Question]:
        with clock.step(name, len(some)) as tell:
            for n, question in enumerate(questions(settings, log, some, categories, store)):
                yield question
                if n % 100 == 0:
                    tell(n)

    cut = int(split * len(log))
    fitted, vectors, validation_recall = _fit_rankers(log, cut, categories, asking, clock)
    cascade = _assemble(log, cut, fitted, vectors, categories, clock)
    results, reference, checked = _evaluate(log, cut, cascade, asking, clock, protocols, most_questions)
    with clock.step("audit"):
        audited = audit(store, checked)
    version = None
    if register:
        final = _assemble(log, len(log), fitted, vectors, categories, clock)
        with clock.step("register"), tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "bundle"
            folder.mkdir()
            pq.write_table(reference.table(), folder / bundle.REFERENCE)
            best = {
                f"{r.protocol} {name}": value
                for r in results
                if r.model == "cascade"
                for name, value in r.metrics.items()
            }
            about = {
                "items": len(log.item_ids),
                "liked": int(log.liked.sum()),
                "cut": int(log.at[cut - 1]),
                "metrics": best,
            }
            bundle.save(folder, final, key, **about)
            parameters = {
                "split": split,
                "liked": int(log.liked.sum()),
                "users": len(log.user_ids),
                "items": len(log.item_ids),
            }
            version = registry.register(
                settings, folder, parameters, {**best, **{f"validation {k}": v for k, v in fitted.validation.items()}}
            )
    return TrainReport(
        results,
        {**validation_recall, **fitted.validation},
        type(fitted.reranker).__name__,
        version,
        clock.seconds,
        audited,
        int(log.liked.sum()),
        int(log.at[cut - 1]),
    )


def _natural(item_id: str) -> tuple[int, str]:
    """Numbers by size, other ids after them: the order of the catalogue, which breaks ties."""
    return (int(item_id), "") if item_id.isdigit() else (1 << 62, item_id)


Ask = Callable[[Sequence[Asking], str], Iterator[Question]]


def _recall(log: Log, stop: int, clock: _Clock) -> Recall:
    liked = log.matrix(stop)
    with clock.step("fit item-to-item"):
        links = item_to_item.fit(liked)
    with clock.step("fit LightGCN"):
        graph = lightgcn.fit(liked)
    return Recall({item_id: n for n, item_id in enumerate(log.item_ids)}, links, graph)


def _fit_rankers(
    log: Log, cut: int, categories: Mapping[str, Sequence[str]], asking: Ask, clock: _Clock
) -> tuple[Fitted, Floats, dict[str, float]]:
    """The stages after recall and the item vectors that they see (of the inner recall, so that no label is in them)."""
    inner, held = int(INNER * cut), int(HELD * cut)
    rng = np.random.default_rng(SEED)

    def pick(start: int, stop: int, size: int) -> list[Asking]:
        some = start + np.flatnonzero(log.liked[start:stop])
        return asked_before(log, sorted(rng.choice(some, min(size, len(some)), replace=False).tolist()))

    recall = _recall(log, inner, clock)
    length = np.linalg.norm(recall.lightgcn.items, axis=1, keepdims=True)
    vectors: Floats = (recall.lightgcn.items / np.maximum(length, 1e-6)).astype(np.float32)
    vectors[np.asarray(log.matrix(inner).sum(0)).ravel() == 0] = 0.0
    draft = Cascade(recall, vectors, _category_vectors(log, vectors, categories), None, None)  # type: ignore[arg-type]

    def lists(some: list[Asking], name: str) -> list[Listing]:
        out = []
        for question in asking(some, name):
            f = draft.features(ask(question))
            good = np.array(
                [question.items.ids[row] in question.positives for row in f.rows.tolist()], dtype=np.float32
            )
            out.append(Listing(f, good))
        return out

    train = lists(pick(inner, held, TRAIN_QUESTIONS), "ask for training")
    test = lists(pick(held, cut, HELD_QUESTIONS), "ask for validation")
    with clock.step("fit DIN, RankNet, LambdaRank"):
        fitted = rankers.fit(train, test, input_names(SOURCES))
    found = [x.labels.any() for x in test]
    return fitted, vectors, {"recall@300": float(np.mean(found))}


def _category_vectors(log: Log, vectors: Floats, categories: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
    """The mean vector of each category's known items."""
    members: dict[str, list[int]] = {}
    for n, item_id in enumerate(log.item_ids):
        if vectors[n].any():
            for name in categories.get(item_id, ()):
                members.setdefault(name, []).append(n)
    return {name: vectors[rows].mean(0) for name, rows in members.items()}


def _assemble(
    log: Log, stop: int, fitted: Fitted, vectors: Floats, categories: Mapping[str, Sequence[str]], clock: _Clock
) -> Cascade:
    """A cascade whose recall has seen the first `stop` interactions."""
    near = _category_vectors(log, vectors, categories)
    filled = vectors.copy()
    for n, item_id in enumerate(log.item_ids):
        if not filled[n].any() and (known := [near[c] for c in categories.get(item_id, ()) if c in near]):
            filled[n] = np.mean(known, axis=0)
    return Cascade(_recall(log, stop, clock), filled, near, fitted.din, fitted.reranker)


def _evaluate(
    log: Log, cut: int, cascade: Cascade, asking: Ask, clock: _Clock, protocols: Sequence[str], most: int
) -> "tuple[list[Result], _Reference, list[tuple[Question, str]]]":
    """The table; the reference for drift; (question, item) pairs for the audit."""
    fits, models, spent = baselines(log.matrix(cut)), dict[str, Model](), dict[str, float]()
    for name, fit in fits.items():
        with clock.step(f"fit {name}"):
            models[name] = ranked(fit())
        spent[name] = clock.seconds[f"fit {name}"]
    models |= stages(cascade)
    spent["cascade"] = sum(s for name, s in clock.seconds.items() if name.startswith("fit ") and name[4:] not in fits)
    after = cut + np.flatnonzero(log.liked[cut:])
    rng = np.random.default_rng(SEED)
    results: list[Result] = []
    reference = _Reference()
    pairs: list[tuple[Question, str]] = []
    if "static" in protocols:
        board = Scoreboard("static", models).run(asking(_static(log, cut), "evaluate static"))
        results += board.results(spent, _sizes(cascade))
    if "prequential" in protocols:
        some = after if len(after) <= most else np.sort(rng.choice(after, most, replace=False))
        every = max(1, len(some) // 1_000)

        def keeping(stream: Iterator[Question]) -> Iterator[Question]:
            for n, question in enumerate(stream):
                if n % every == 0:
                    reference.add(cascade, question)
                if n % (every * 5) == 0 and len(pairs) < AUDITED:
                    pairs.append((question, question.items.ids[int(rng.integers(len(question.items)))]))
                yield question

        board = Scoreboard("prequential", models).run(
            keeping(asking(asked_before(log, some.tolist()), "evaluate prequential"))
        )
        results += board.results(spent, _sizes(cascade))
    return results, reference, pairs


def _static(log: Log, cut: int) -> list[Asking]:
    """One question at the cut for each user with an interaction before it, for all that is liked after it."""
    known = set(log.users[:cut].tolist())
    later: dict[int, list[str]] = {}
    for n in range(cut, len(log)):
        if log.liked[n] and int(log.users[n]) in known:
            later.setdefault(int(log.users[n]), []).append(log.item_ids[int(log.items[n])])
    return [Asking(user, int(log.at[cut]) - 1, tuple(items)) for user, items in sorted(later.items())]


def _sizes(cascade: Cascade) -> dict[str, float]:
    """Megabytes of the parameters."""
    links, graph = cascade.recall.item_to_item.weights, cascade.recall.lightgcn
    i2i = (links.data.nbytes + links.indices.nbytes + links.indptr.nbytes) / 1e6
    gcn = (graph.items.nbytes + graph.degrees.nbytes) / 1e6
    din = sum(p.numel() * 4 for p in cascade.din.parameters()) / 1e6 + cascade.vectors.nbytes / 1e6
    top = len(cascade.reranker.booster.model_to_string()) / 1e6 if isinstance(cascade.reranker, LambdaRank) else 0.01
    return {
        f"recall: {SOURCES[0]}": i2i,
        f"recall: {SOURCES[3]}": gcn,
        "recall + DIN": i2i + gcn + din,
        "cascade": i2i + gcn + din + top,
    }


class _Reference:
    """Values and scores of what would have been served: one row for each item of some answers."""

    def __init__(self) -> None:
        names = (*(f"user__{c}" for c in USER_COLUMNS), *(f"item__{c}" for c in ITEM_COLUMNS), "score")
        self._columns: dict[str, list[float]] = {name: [] for name in names}

    def add(self, cascade: Cascade, question: Question) -> None:
        for pick in cascade.recommend(ask(question)).picks:
            row = {f"user__{c}": question.user_values[c] for c in USER_COLUMNS}
            row |= {f"item__{c}": value for c, value in question.items.values_of(pick.row).items()}
            for name, value in (row | {"score": pick.score}).items():
                self._columns[name].append(float(value))

    def table(self) -> pa.Table:
        """Float64 columns, named as the features are."""
        return pa.table(self._columns)

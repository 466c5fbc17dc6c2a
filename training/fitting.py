"""Fits a whole cascade on a log, without a stage ever seeing a label that the stage before it has learned from.

Recall is fitted on the first part of the training data, ranking on questions asked in the second, and the last tenth
decides between models. Then `assemble` fits recall again on all of it. Evaluating and registering is left to
`training.pipeline`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bentos.cascade import Cascade
from bentos.inputs import Floats, input_names
from bentos.stages.exposure import tail
from bentos.stages.recall import SOURCES, Recall
from bentos.taste import Taste
from freshet.settings import Settings
from training import item_to_item, lightgcn, rankers, taste
from training.clock import Clock
from training.datasets import Asking, Log, Question, asked_before, questions
from training.evaluation import ask
from training.exposure import Dial, dials
from training.parallel import ALONE, Crew
from training.parameters import Parameters
from training.rankers import Fitted, Listing
from training.shown import novelty

INNER, HELD = 0.75, 0.9
"""Parts of the training data: recall is fitted up to `INNER`, ranking up to `HELD`, the rest validates."""
TRAIN_QUESTIONS, HELD_QUESTIONS = 5_000, 1_500
AUDITED = 200
"""Questions that are held against Feast's own join before anything is fitted to them."""
SEED = 7

Categories = Mapping[str, Sequence[str]]
Asker = Callable[[Sequence[Asking], str], Iterator[Question]]
"""Builds questions; the name is that of the step."""
Audit = Callable[[Sequence[tuple[Question, str]]], None]
"""Raises when the values of (question, item) pairs are not Feast's."""


def asker(settings: Settings, log: Log, categories: Categories, clock: Clock) -> Asker:
    """Builds questions on a log, and tells of its progress."""

    def ask_all(some: Sequence[Asking], name: str) -> Iterator[Question]:
        with clock.step(name, len(some)) as tell:
            for n, question in enumerate(questions(settings, log, some, categories)):
                yield question
                if n % 100 == 0:
                    tell(n)

    return ask_all


@dataclass(frozen=True, eq=False)
class Stages:
    """What does not change when recall is fitted again: the stages after it, and the item vectors that they learned on.

    The vectors are those of the inner recall, so that no label of ranking is in them. `found` is the share of the
    validation's answers that were among the candidates, `dials` what exposure for the long tail costs there.
    """

    fitted: Fitted
    vectors: Floats
    found: float
    dials: list[Dial]


@dataclass(frozen=True, eq=False)
class Draft:
    """The inner recall's item vectors, and the lists of its candidates: those to fit to, and those to choose by."""

    vectors: Floats
    train: list[Listing]
    held: list[Listing]


def recall(log: Log, stop: int, clock: Clock, given: Parameters, crew: Crew = ALONE) -> Recall:
    """All learned sources, from the first `stop` interactions."""
    liked = log.matrix(stop)
    with clock.step("fit item-to-item"):
        links = item_to_item.fit(liked, given.links)
    with clock.step("fit LightGCN"):
        graph = crew.fit(partial(lightgcn.fit, liked, given.graph))
    return Recall({item_id: n for n, item_id in enumerate(log.item_ids)}, links, graph)


def tastes(log: Log, stop: int, clock: Clock) -> Taste:
    """The items' places among the tastes, from the first `stop` interactions."""
    with clock.step("fit taste"):
        return taste.fit(log.matrix(stop))


def draft(
    log: Log,
    cut: int,
    categories: Categories,
    asker: Asker,
    audit: Audit,
    clock: Clock,
    given: Parameters,
    crew: Crew = ALONE,
) -> Draft:
    """What the stages after recall are fitted to, from the first `cut` interactions."""
    inner, held = int(INNER * cut), int(HELD * cut)
    rng, dice = np.random.default_rng(SEED), np.random.default_rng((SEED, 1))

    def pick(start: int, stop: int, size: int) -> list[Asking]:
        some = start + np.flatnonzero(log.liked[start:stop])
        return asked_before(log, sorted(rng.choice(some, min(size, len(some)), replace=False).tolist()))

    inner_recall = recall(log, inner, clock, given, crew)
    length = np.linalg.norm(inner_recall.lightgcn.items, axis=1, keepdims=True)
    vectors: Floats = (inner_recall.lightgcn.items / np.maximum(length, 1e-6)).astype(np.float32)
    vectors[np.asarray(log.matrix(inner).sum(0)).ravel() == 0] = 0.0
    near = category_vectors(log, vectors, categories)
    whole = Cascade(inner_recall, vectors, near, tastes(log, inner, clock), None, None)  # type: ignore[arg-type]
    checked: list[tuple[Question, str]] = []

    def lists(some: list[Asking], name: str) -> list[Listing]:
        out = []
        every = max(1, len(some) // AUDITED)
        for n, question in enumerate(asker(some, name)):
            f = whole.features(ask(question))
            good = [question.items.ids[row] in question.positives for row in f.rows.tolist()]
            liked, items = np.array(good, dtype=np.float32), question.items
            out.append(Listing(f, liked, question.user_id, tail(items)[f.rows], novelty(items)[f.rows]))
            if n % every == 0 and len(checked) < AUDITED:
                checked.append((question, question.items.ids[int(dice.integers(len(question.items)))]))
        return out

    train = lists(pick(inner, held, TRAIN_QUESTIONS), "ask for training")
    with clock.step("audit"):
        audit(checked)
    test = lists(pick(held, cut, HELD_QUESTIONS), "ask for validation")
    return Draft(vectors, train, test)


def stages(drafted: Draft, clock: Clock, given: Parameters, crew: Crew = ALONE) -> Stages:
    """Fit the stages after recall."""
    with clock.step("fit DIN, RankNet, LambdaRank"):
        fitted = rankers.fit(
            drafted.train,
            drafted.held,
            input_names(SOURCES),
            din_epochs=given.din_epochs,
            din_rate=given.din_rate,
            crew=crew,
        )
    with clock.step("dial"):
        cost = dials(fitted, drafted.held, len(drafted.vectors))
    return Stages(fitted, drafted.vectors, float(np.mean([x.labels.any() for x in drafted.held])), cost)


def category_vectors(log: Log, vectors: Floats, categories: Categories) -> dict[str, Floats]:
    """The mean vector of each category's known items."""
    members: dict[str, list[int]] = {}
    for n, item_id in enumerate(log.item_ids):
        if vectors[n].any():
            for name in categories.get(item_id, ()):
                members.setdefault(name, []).append(n)
    return {name: vectors[rows].mean(0) for name, rows in members.items()}


def assemble(
    log: Log, stop: int, after: Stages, categories: Categories, clock: Clock, given: Parameters, crew: Crew = ALONE
) -> Cascade:
    """A cascade whose recall has seen the first `stop` interactions."""
    near = category_vectors(log, after.vectors, categories)
    filled = after.vectors.copy()
    for n, item_id in enumerate(log.item_ids):
        if not filled[n].any() and (known := [near[c] for c in categories.get(item_id, ()) if c in near]):
            filled[n] = np.mean(known, axis=0)
    fitted = after.fitted
    return Cascade(
        recall(log, stop, clock, given, crew),
        filled,
        near,
        tastes(log, stop, clock),
        fitted.din,
        fitted.reranker,
        calibration=fitted.calibration,
    )

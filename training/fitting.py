"""Fits a whole cascade on a log, without a stage ever seeing a label that the stage before it has learned from.

Recall is fitted on the first part of the training data, ranking on questions asked in the second, and the last tenth
decides between models. Then `assemble` fits recall again on all of it. Evaluating and registering is left to
`training.pipeline`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bentos.cascade import Ask, Cascade
from bentos.inputs import Floats, Indices, input_names
from bentos.stages.content import Tower, features
from bentos.stages.exposure import tail
from bentos.stages.novelty import freshness, novelty
from bentos.stages.recall import SOURCES, Recall
from bentos.stages.rules import Freshness
from bentos.stages.session import looked_through
from bentos.taste import Taste
from freshet.settings import Settings
from streams.catalogue import Item
from training import content, item_to_item, lightgcn, rankers, taste
from training.clock import Clock
from training.conversion import Price, measures, prices, said
from training.datasets import Asking, Log, Question, asked_before, questions
from training.evaluation import ask
from training.exposure import Dial, dials
from training.parallel import ALONE, Crew
from training.parameters import Parameters
from training.rankers import Fitted, Listing

INNER, HELD = 0.75, 0.9
"""Parts of the training data: recall is fitted up to `INNER`, ranking up to `HELD`, the rest validates."""
TRAIN_QUESTIONS, HELD_QUESTIONS = 5_000, 1_500
AUDITED = 200
"""Questions that are held against Feast's own join before anything is fitted to them."""
SEED = 7

Catalogue = Mapping[str, Item]
Asker = Callable[[Sequence[Asking], str], Iterator[Question]]
"""Builds questions; the name is that of the step."""
Audit = Callable[[Sequence[tuple[Question, str]]], None]
"""Raises when the values of (question, item) pairs are not Feast's."""


def asker(settings: Settings, log: Log, catalogue: Catalogue, clock: Clock) -> Asker:
    """Builds questions on a log, and tells of its progress."""

    def ask_all(some: Sequence[Asking], name: str) -> Iterator[Question]:
        with clock.step(name, len(some)) as tell:
            for n, question in enumerate(questions(settings, log, some, catalogue)):
                yield question
                if n % 100 == 0:
                    tell(n)

    return ask_all


@dataclass(frozen=True, eq=False)
class Stages:
    """What does not change when recall is fitted again: the stages after it, and the item vectors that they learned on.

    Vectors and tower are those of the inner recall, so that no label of ranking is in them. `found` is the share of the
    validation's answers that were among the candidates, `dials` what exposure for the long tail, novelty and freshness
    cost there, `prices` what hoping for conversions does; `conversion` is how well those are told.
    """

    fitted: Fitted
    vectors: Floats
    tower: Tower
    found: float
    dials: list[Dial]
    prices: list[Price]
    conversion: dict[str, float]


@dataclass(frozen=True, eq=False)
class Draft:
    """The inner recall's item vectors and tower; the lists of its candidates, to fit to and to choose by."""

    vectors: Floats
    tower: Tower
    train: list[Listing]
    held: list[Listing]


def recall(log: Log, stop: int, catalogue: Catalogue, clock: Clock, given: Parameters, crew: Crew = ALONE) -> Recall:
    """All learned sources, from the first `stop` interactions."""
    liked = log.matrix(stop)
    with clock.step("fit item-to-item"):
        links = item_to_item.fit(liked, given.links)
    with clock.step("fit LightGCN"):
        graph = crew.fit(partial(lightgcn.fit, liked, given.graph))
    with clock.step("fit content"):
        described = features([catalogue.get(item_id) for item_id in log.item_ids])
        graph, tower = content.fit(graph, np.asarray(liked.sum(0)).ravel(), described)
    return Recall({item_id: n for n, item_id in enumerate(log.item_ids)}, links, graph, tower)


def tastes(log: Log, stop: int, clock: Clock) -> Taste:
    """The items' places among the tastes, from the first `stop` interactions."""
    with clock.step("fit taste"):
        return taste.fit(log.matrix(stop))


def passed(asked: Ask, rows: Indices) -> npt.NDArray[np.bool_]:
    """Which of these rows this session had shown by then, without a like of them since. bool [m]."""
    shown, liked = looked_through(asked.user_values, asked.items, asked.history)
    return np.isin(rows, shown[~liked])


def draft(
    log: Log,
    cut: int,
    catalogue: Catalogue,
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
        picks = sorted(rng.choice(some, min(size, len(some)), replace=False).tolist())
        return asked_before(log, picks, until=int(log.at[cut - 1]))

    inner_recall = recall(log, inner, catalogue, clock, given, crew)
    vectors = inner_recall.lightgcn.items
    whole = Cascade(inner_recall, vectors, inner_recall.tower, tastes(log, inner, clock), None, None)  # type: ignore[arg-type]
    checked: list[tuple[Question, str]] = []

    def lists(some: list[Asking], name: str) -> list[Listing]:
        out = []
        every = max(1, len(some) // AUDITED)
        for n, question in enumerate(asker(some, name)):
            asked, items = ask(question), question.items
            f = whole.features(asked)
            liked, converted = (
                np.array([items.ids[row] in those for row in f.rows.tolist()], dtype=np.float32)
                for those in (question.positives, question.converted)
            )
            fresh = freshness(items, f.rows, Freshness().half_life_hours)
            about = passed(asked, f.rows), tail(items)[f.rows], novelty(items)[f.rows], fresh
            out.append(Listing(f, liked, converted, question.user_id, *about))
            if n % every == 0 and len(checked) < AUDITED:
                checked.append((question, question.items.ids[int(dice.integers(len(question.items)))]))
        return out

    train = lists(pick(inner, held, TRAIN_QUESTIONS), "ask for training")
    with clock.step("audit"):
        audit(checked)
    test = lists(pick(held, cut, HELD_QUESTIONS), "ask for validation")
    return Draft(vectors, inner_recall.tower, train, test)


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
        cost, ranked = dials(fitted, drafted.held, len(drafted.vectors)), said(fitted, drafted.held)
        hope, told = prices(fitted, drafted.held, ranked), measures(drafted.held, ranked)
    found = float(np.mean([x.labels.any() for x in drafted.held]))
    return Stages(fitted, drafted.vectors, drafted.tower, found, cost, hope, told)


def assemble(
    log: Log, stop: int, after: Stages, catalogue: Catalogue, clock: Clock, given: Parameters, crew: Crew = ALONE
) -> Cascade:
    """A cascade whose recall has seen the first `stop` interactions."""
    fitted = after.fitted
    return Cascade(
        recall(log, stop, catalogue, clock, given, crew),
        after.vectors,
        after.tower,
        tastes(log, stop, clock),
        fitted.din,
        fitted.reranker,
        calibration=fitted.calibration,
    )

"""Judges ways to choose what is explored, from what was logged, without showing anybody anything.

Each explored place logged its pool and the probability of each item (`bentos.stages.explore`), and the events say
what was clicked. So the clicks that another choice would have got can be estimated: by inverse propensities (IPS,
Horvitz and Thompson, 1952), by the same normalised by its weights (SNIPS, Swaminathan and Joachims, 2015), and doubly
robust (DR, Dudik et al., 2011) with the bandit's own expectation as the model of reward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from bentos.stages.explore import posterior
from freshet.settings import Settings
from streams.events import BadEvent, decode
from streams.topics import EVENTS, RESPONSES
from training.intervals import Bootstrap, Interval

Values = npt.NDArray[np.float64]
LEAST = 100
"""Explored places below which nothing can be said."""
BATCH = 1_000
"""Records that are read at a time; a response is some 12 kB."""


class NothingLogged(ValueError):
    """Too few explored places are archived. The text says how many, and what to do."""


class Draw(msgspec.Struct, frozen=True):
    """One explored place as it is logged; lists over the pool."""

    chosen: int
    item_ids: list[str]
    propensity: list[float]
    weight: list[float]
    clicks: list[float]
    impressions: list[float]
    rate: float

    def expected(self) -> Values:
        """What the bandit expects of each item, up to a factor: the mean of its posterior, times the weight."""
        a, b = posterior(np.array(self.clicks), np.array(self.impressions), self.rate)
        value: Values = a / (a + b) * np.array(self.weight)
        return value


class _Response(msgspec.Struct):
    request_id: str
    user_id: str
    explored: list[Draw] = []


@dataclass(frozen=True)
class Decision:
    """One explored place and what came of it: `reward` is 1 where the item was clicked."""

    user_id: str
    draw: Draw
    reward: float


Policy = Callable[[Draw], Values]
"""The probability with which each item of a pool would be chosen."""


def _best(scores: Values) -> Values:
    chosen = np.zeros(len(scores))
    chosen[int(np.argmax(scores))] = 1.0
    return chosen


POLICIES: dict[str, Policy] = {
    "as served (Thompson sampling)": lambda draw: np.array(draw.propensity),
    "ranking's first": lambda draw: _best(np.array(draw.weight)),
    "the best expected": lambda draw: _best(draw.expected()),
    "any, evenly": lambda draw: np.full(len(draw.item_ids), 1.0 / len(draw.item_ids)),
}


@dataclass(frozen=True)
class Estimate:
    """Clicks a place under a policy, by three estimators, with 95% intervals over users.

    `effective`: how many decisions that were made by the policy itself would tell as much.
    """

    policy: str
    ips: Interval
    snips: Interval
    dr: Interval
    effective: float


def read(settings: Settings) -> list[Decision]:
    """Every explored place of the archive, with its outcome. Raises `NothingLogged`."""
    answers: dict[str, _Response] = {}
    reader = msgspec.json.Decoder(_Response)
    for value in _values(settings, RESPONSES):
        response = reader.decode(value)
        if response.explored:
            answers[response.request_id] = response
    if not answers:
        raise NothingLogged(
            "no explored place is archived: is FRESHET_EXPLORE_SHARE above 0, and have recommendations been asked for?"
        )
    clicked = set[tuple[str, str]]()
    for value in _values(settings, EVENTS):
        try:
            event = decode(value, settings.future_tolerance_s * 1_000_000)
        except BadEvent:
            continue
        if event.type == "click" and event.request_id in answers:
            clicked.add((event.request_id, event.item_id))
    return [
        Decision(response.user_id, draw, float((request_id, draw.item_ids[draw.chosen]) in clicked))
        for request_id, response in answers.items()
        for draw in response.explored
    ]


def _values(settings: Settings, topic: str) -> Iterator[bytes]:
    """Every record of the archive, a few at a time: an hour's responses alone are more than memory."""
    for file in sorted((settings.archive_dir / topic).glob("p=*/*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH, columns=["value"]):
            yield from batch.column(0).to_pylist()


def estimates(decisions: Sequence[Decision], policies: dict[str, Policy] = POLICIES) -> list[Estimate]:
    """What each policy would have got. Raises `NothingLogged` where there are too few decisions."""
    if len(decisions) < LEAST:
        raise NothingLogged(
            f"{len(decisions)} explored places are archived, at least {LEAST} are needed: wait for more"
        )
    draws = Bootstrap([d.user_id for d in decisions])
    reward = np.array([d.reward for d in decisions])
    chosen = [d.draw.chosen for d in decisions]
    expected = [d.draw.expected() for d in decisions]
    scale = reward.sum() / max(sum(q[c] for q, c in zip(expected, chosen, strict=True)), 1e-12)
    out = []
    for name, policy in policies.items():
        probability = [policy(d.draw) for d in decisions]
        weight = np.array([p[c] / d.draw.propensity[c] for p, c, d in zip(probability, chosen, decisions, strict=True)])
        model = np.array([p @ q for p, q in zip(probability, expected, strict=True)]) * scale
        surprise = reward - np.array([q[c] for q, c in zip(expected, chosen, strict=True)]) * scale
        out.append(
            Estimate(
                name,
                draws.interval((weight * reward).tolist()),
                draws.ratio(weight * reward, weight),
                draws.interval((model + weight * surprise).tolist()),
                float(weight.sum() ** 2 / max((weight**2).sum(), 1e-12)),
            )
        )
    return out

"""Exploration: a few places of each answer go to items of which little is known, so that something becomes known.

Which item is a contextual bandit's choice, by Thompson sampling: what an item's own impressions and clicks say of it (a
Beta posterior, from the live features, so every click that the stream folds in counts at the next closed tile, in every
process) times what ranking says of this user and the item. The probability with which each item could have been chosen
goes into the log, so that other choices can be judged later without being made (`training.off_policy`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices, ItemMatrix
from bentos.stages.recall import is_new

POOL = 24
"""Items that one place is drawn from: those that ranking puts first."""
DRAWS = 64
UNIFORM = 0.1
"""Part of the probability that is spread evenly: no item of the pool is impossible, which judging needs."""
STRENGTH = 30.0
"""Impressions that the catalogue's click-through rate counts for where an item has none of its own."""


@dataclass(frozen=True, eq=False)
class Draw:
    """How one place was filled. Arrays over the pool.

    `rows` int64 [n] in the item matrix, `weight` float64 [n]: ranking's probability over the pool's mean; `clicks` and
    `impressions` float64 [n]; `propensity` float64 [n], sums to 1; `chosen` is the index of what was chosen; `rate` is
    that of the catalogue.
    """

    position: int
    rows: Indices
    weight: npt.NDArray[np.float64]
    clicks: npt.NDArray[np.float64]
    impressions: npt.NDArray[np.float64]
    propensity: npt.NDArray[np.float64]
    chosen: int
    rate: float


def rate(items: ItemMatrix) -> float:
    """The catalogue's clicks an impression in seven days; a fiftieth where there is none yet, a half at most.

    Whoever sends clicks and no impressions has more of the former.
    """

    def make() -> float:
        clicks, impressions = items.column("clicks_7d").sum(), items.column("impressions_7d").sum()
        return float(min((clicks + 1.0) / (impressions + 50.0), 0.5))

    found: float = items.once("click rate", make)
    return found


def posterior(
    clicks: npt.NDArray[np.float64], impressions: npt.NDArray[np.float64], mean: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The two parameters of each item's Beta. A click without its impression counts as one."""
    return STRENGTH * mean + clicks, STRENGTH * (1 - mean) + np.maximum(impressions - clicks, 0.0)


def explore(
    items: ItemMatrix, rows: Indices, likely: Floats, taken: Indices, places: list[int], rng: np.random.Generator
) -> list[Draw]:
    """Fill `places` from the candidates `rows` int64 [m] with probabilities `likely` [m]; `taken` are in the answer.

    Only new items are explored: ranking has the same little to say of each, so its probabilities compare them by how
    they fit the user. One draw a place, each from what the ones before it left; fewer where nothing is left.
    """
    left = np.flatnonzero(items.once("is new", lambda: is_new(items))[rows])
    left = left[~(rows[left, None] == taken).any(1)]
    left = left[np.argsort(-likely[left], kind="stable")][: POOL + len(places)]
    mean = rate(items)
    clicks, impressions = items.column("clicks_7d"), items.column("impressions_7d")
    draws = []
    for place in places:
        pool = left[:POOL]
        if len(pool) == 0:
            break
        of = rows[pool]
        weight = likely[pool].astype(np.float64)
        weight /= max(float(weight.mean()), 1e-12)
        a, b = posterior(clicks[of], impressions[of], mean)
        best = (rng.beta(a, b, (DRAWS, len(pool))) * weight).argmax(1)
        propensity = (1 - UNIFORM) * np.bincount(best, minlength=len(pool)) / DRAWS + UNIFORM / len(pool)
        chosen = int(rng.choice(len(pool), p=propensity))
        draws.append(Draw(place, of, weight, clicks[of], impressions[of], propensity, chosen, mean))
        left = np.delete(left, chosen)
    return draws

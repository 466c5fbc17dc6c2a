"""Lift: how much more of what was shown is clicked in one arm than in another, with its uncertainty. Pure."""

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4_000


class Lift(msgspec.Struct, frozen=True):
    """`lift` is the ratio of two click-through rates less 1 (0.3: thirty per cent more); `low` to `high` holds 95%."""

    lift: float
    low: float
    high: float


def rate(counts: NDArray[np.int64]) -> float:
    """Click-through rate of [users, 2]: clicks and impressions."""
    clicks, shown = counts.sum(axis=0).tolist() if len(counts) else (0, 0)
    return clicks / shown if shown else 0.0


def lift(arm: NDArray[np.int64], other: NDArray[np.int64], seed: int = 0, resamples: int = RESAMPLES) -> Lift | None:
    """The lift of one arm over another, each [users, 2]: clicks and impressions of each user.

    The interval is the percentile bootstrap over users (Efron 1979), since the clicks of one user depend on each other.
    None where an arm has nothing to compare: no user, or no click in `other`.
    """
    if not len(arm) or not len(other) or not rate(other):
        return None
    rng = np.random.default_rng(seed)
    ours, theirs = _resampled(arm, rng, resamples), _resampled(other, rng, resamples)
    both = theirs > 0
    low, high = np.quantile(ours[both] / theirs[both] - 1, [0.025, 0.975])
    return Lift(rate(arm) / rate(other) - 1, float(low), float(high))


def _resampled(counts: NDArray[np.int64], rng: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """Click-through rates of samples of as many users, drawn with replacement."""
    users = len(counts)
    rates = []
    for first in range(0, resamples, 500):  # a part at a time: the weights of all would fill memory
        weights = rng.multinomial(users, np.full(users, 1 / users), size=min(500, resamples - first))
        clicks, shown = (weights @ counts).T
        rates.append(clicks / np.maximum(shown, 1))
    return np.concatenate(rates)

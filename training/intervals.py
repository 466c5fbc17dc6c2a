"""How sure a mean over questions is, and the difference of two models that were asked the same ones.

Questions of one user resemble each other, so whole users are drawn with replacement (the cluster bootstrap; Davison and
Hinkley, 1997, section 3.8), the same draws for every model: differences are paired.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
LEVEL = 0.95
SEED = 7
CHUNK = 20
"""Resamples that are drawn and added up at a time: numpy's own numbers for them are eight times as large as ours."""


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """Draws of the users who asked these questions; `users` names each question's."""

    def __init__(self, users: Sequence[str]) -> None:
        _, self._cluster = np.unique(np.asarray(users), return_inverse=True)
        clusters = int(self._cluster.max()) + 1
        rng, evenly = np.random.default_rng(SEED), np.full(clusters, 1.0 / clusters)
        self._draws = np.empty((RESAMPLES, clusters), dtype=np.uint8)  # nobody is drawn 256 times when each is once
        for n in range(0, RESAMPLES, CHUNK):
            self._draws[n : n + CHUNK] = rng.multinomial(clusters, evenly, size=CHUNK)
        self._drawn = self._sums(np.ones(len(users)))

    def _sums(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of one value a question, in each resample. [RESAMPLES]."""
        of_users = np.bincount(self._cluster, weights=values)
        return np.concatenate([self._draws[n : n + CHUNK] @ of_users for n in range(0, RESAMPLES, CHUNK)])

    def interval(self, values: Sequence[float]) -> Interval:
        """Of one value a question, e.g. the differences of two models."""
        means = self._sums(np.asarray(values, dtype=float)) / self._drawn
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(np.mean(values)), float(low), float(high))

    def ratio(self, above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> Interval:
        """Of the sum of one value a question over the sum of another; draws without any of the latter are left out."""
        tops, bottoms = self._sums(above), self._sums(below)
        there = bottoms > 0
        if not there.any():
            return Interval(0.0, 0.0, 0.0)
        low, high = np.quantile(tops[there] / bottoms[there], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(above.sum() / below.sum()), float(low), float(high))

    def difference(self, mine: Sequence[float], other: Sequence[float]) -> Interval:
        """Of `mine` over `other`, question by question."""
        return self.interval(np.subtract(mine, other).tolist())

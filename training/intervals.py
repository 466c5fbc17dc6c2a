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


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """Draws of the users who asked these questions; `users` names each question's."""

    def __init__(self, users: Sequence[str]) -> None:
        _, self._cluster = np.unique(np.asarray(users), return_inverse=True)
        self._counts = np.bincount(self._cluster).astype(float)
        clusters = len(self._counts)
        rng = np.random.default_rng(SEED)
        self._draws = rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=RESAMPLES).astype(float)
        self._drawn = self._draws @ self._counts

    def interval(self, values: Sequence[float]) -> Interval:
        """Of one value a question, e.g. the differences of two models."""
        sums = np.bincount(self._cluster, weights=np.asarray(values, dtype=float), minlength=len(self._counts))
        means: npt.NDArray[np.float64] = self._draws @ sums / self._drawn
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(np.mean(values)), float(low), float(high))

    def ratio(self, above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> Interval:
        """Of the sum of one value a question over the sum of another; draws without any of the latter are left out."""
        tops, bottoms = (
            self._draws @ np.bincount(self._cluster, weights=values, minlength=len(self._counts))
            for values in (above, below)
        )
        there = bottoms > 0
        if not there.any():
            return Interval(0.0, 0.0, 0.0)
        low, high = np.quantile(tops[there] / bottoms[there], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(above.sum() / below.sum()), float(low), float(high))

    def difference(self, mine: Sequence[float], other: Sequence[float]) -> Interval:
        """Of `mine` over `other`, question by question."""
        return self.interval(np.subtract(mine, other).tolist())

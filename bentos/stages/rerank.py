"""Re-ranking: a learned order over all that is known of the few best, then room for variety.

RankNet, LambdaRank, the two together and ranking's own order stand behind one interface; the bundle carries what won on
validation. How they are fitted is left to `training.rankers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bentos.inputs import Floats, Indices
from bentos.stages.rank import Ranked

if TYPE_CHECKING:
    import lightgbm


class Reranker(Protocol):
    """Scores of candidates from their rows, float32 [m, f] -> float32 [m]; higher is better."""

    def scores(self, rows: Floats) -> Floats: ...


class Keep:
    """Ranking's own order: what stays when nothing beats it on validation."""

    def scores(self, rows: Floats) -> Floats:
        """See `Reranker`. DIN's score is the last column."""
        return rows[:, -1]


@dataclass(frozen=True, eq=False)
class RankNet:
    """A small network whose pairs of scores were fitted to the order of the labels (Burges et al., ICML 2005).

    `weights`: float32, by the names of `training.networks.RankNetModule`.
    """

    weights: Mapping[str, Floats]

    def scores(self, rows: Floats) -> Floats:
        """See `Reranker`."""
        w = self.weights
        x = (rows - w["mean"]) / w["scale"] @ w["layers.0.weight"].T + w["layers.0.bias"]
        scored: Floats = np.maximum(x, 0.0) @ w["layers.2.weight"][0] + w["layers.2.bias"]
        return scored


class LambdaRank:
    """LightGBM's LambdaMART, on one thread: more only adds to the tail of the latency."""

    def __init__(self, booster: "lightgbm.Booster") -> None:
        self.booster = booster

    def scores(self, rows: Floats) -> Floats:
        """See `Reranker`."""
        return np.asarray(self.booster.predict(rows, num_threads=1), dtype=np.float32)


class Blend:
    """The sum of both, RankNet's scores times `weight` (the ratio of the spreads on the training lists)."""

    def __init__(self, ranknet: RankNet, lambdarank: LambdaRank, weight: float) -> None:
        self.ranknet, self.lambdarank, self.weight = ranknet, lambdarank, weight

    def scores(self, rows: Floats) -> Floats:
        """See `Reranker`."""
        summed: Floats = np.float32(self.weight) * self.ranknet.scores(rows) + self.lambdarank.scores(rows)
        return summed


def moved(scores: Floats, ranked: Ranked, by: Floats) -> Floats:
    """The scores with something added that is said in ranking's logits, brought to the scores' spread. float32 [m]."""
    spread = float(ranked.logits.std())
    unit = float(scores.std()) / spread if spread > 0 else 1.0
    return (scores + np.float32(unit) * by).astype(np.float32)


def towards_conversion(scores: Floats, ranked: Ranked, weight: float) -> Floats:
    """The order of P(liked) * P(converted | liked) ** weight, as far as scores tell of the first. float32 [m].

    Ranking's logits are log P(liked) but for a constant.
    """
    return moved(scores, ranked, np.float32(-weight) * np.logaddexp(np.float32(0), -ranked.conversion))


def diversify(scores: Floats, categories: Floats, k: int, strength: float) -> Indices:
    """Order of the best `k` by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998). int64 [<= k].

    `scores` [m]; `categories` [m, c] as 0 and 1. Each pick costs the others `strength` of the scores' spread times
    their cosine with it; 0 leaves the order as it is. Only the best 3k take part. Ties: the earlier row.
    """
    order = np.argsort(-scores, kind="stable")
    if strength <= 0.0 or len(order) <= 1:
        return order[:k]
    pool = order[: 3 * k]
    spread = float(scores[pool].std()) or 1.0
    unit = categories[pool] / np.sqrt(np.maximum(categories[pool].sum(1, keepdims=True), 1.0))
    worth, costs = scores[pool] / spread, np.float32(strength) * (unit @ unit.T)
    cost = np.zeros(len(pool), dtype=np.float32)
    picked: list[int] = []
    for _ in range(min(k, len(pool))):
        best = int((worth - cost).argmax())
        picked.append(best)
        worth[best] = -np.inf
        np.maximum(cost, costs[best], out=cost)
    return pool[picked]

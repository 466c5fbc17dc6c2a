"""How well conversions are told from other likes, and what hoping for them costs, on the lists that choose models.

The weight is a house rule, `conversion_weight` (docs/how-to/rules.md): it is turned without a training, by this table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from bentos.inputs import Floats
from bentos.stages.rank import Ranked, rank
from bentos.stages.rerank import towards_conversion
from training.calibration import ece
from training.intervals import Bootstrap, Interval
from training.rankers import Fitted, Listing, ndcg

WEIGHTS = (0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Price:
    """The order under one weight. `ndcg` and `change`: NDCG@10 of what was liked, and that against a weight of 0;
    `converted` and `gain`: the same of what converted, over the questions whose answer did.
    """

    weight: float
    ndcg: float
    change: Interval
    converted: float
    gain: Interval


def auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve, equal scores counting half; .5 where one of the two classes is missing."""
    good = float(labels.sum())
    bad = len(labels) - good
    if not good or not bad:
        return 0.5
    return float((rankdata(scores)[labels > 0].sum() - good * (good + 1) / 2) / (good * bad))


def said(fitted: Fitted, held: Sequence[Listing]) -> list[Ranked]:
    """What ranking says of each list."""
    return [rank(fitted.din, f.inputs, f.vectors, f.history, f.ages_s) for f in (x.features for x in held)]


def measures(held: Sequence[Listing], ranked: Sequence[Ranked]) -> dict[str, float]:
    """AUC and ECE of P(converted | liked), over what was liked, and the share that converted."""
    scores, labels = (
        np.concatenate([values[x.labels > 0] for values, x in zip(each, held, strict=True)])
        for each in ([r.conversion for r in ranked], [x.converted for x in held])
    )
    if not len(labels):
        return {}
    return {
        "conversion AUC": auc(scores, labels),
        "conversion ECE": ece(expit(scores.astype(np.float64)), labels.astype(np.float64)),
        "converted": float(labels.mean()),
    }


def prices(fitted: Fitted, held: Sequence[Listing], ranked: Sequence[Ranked]) -> list[Price]:
    """One row a weight; none where nothing converted. Lists without a liked item count as 0."""
    plainly = [
        fitted.reranker.scores(np.concatenate([x.features.inputs, mine.logits[:, None]], 1))
        for x, mine in zip(held, ranked, strict=True)
    ]
    bought = [n for n, x in enumerate(held) if x.converted.any()]
    if not bought:
        return []
    every, some = (Bootstrap([x.user_id for x in lists]) for lists in (held, [held[n] for n in bought]))
    out: list[Price] = []
    plain: tuple[list[float], list[float]] | None = None
    for weight in WEIGHTS:
        scores = [towards_conversion(score, mine, weight) for score, mine in zip(plainly, ranked, strict=True)]
        liked = [ndcg(x.labels, score) for x, score in zip(held, scores, strict=True)]
        converted = [ndcg(held[n].converted, scores[n]) for n in bought]
        plain = plain or (liked, converted)
        change, gain = every.difference(liked, plain[0]), some.difference(converted, plain[1])
        out.append(Price(weight, float(np.mean(liked)), change, float(np.mean(converted)), gain))
    return out

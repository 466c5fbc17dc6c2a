"""What a least share of exposure for the long tail costs, on the lists that a training chooses its models by.

The dial itself is a house rule, `least_tail_exposure` (docs/how-to/rules.md): it is turned without a training, by this
table. The answers are filled by the served code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bentos.stages.exposure import placed, share
from training.evaluation import K
from training.intervals import Bootstrap, Interval
from training.rankers import Fitted, Listing, ndcg, with_din
from training.shown import gini

DIALS = (0.0, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Dial:
    """Answers of 20 under one setting. `change` is that of NDCG@10 against a dial of 0, question by question.

    `tail`: mean share of exposure that goes to the tail; `short`: part of the answers in which it stayed below `least`
    for want of candidates; `coverage`, `gini` and `novelty` as `training.shown` has them.
    """

    least: float
    ndcg: float
    change: Interval
    tail: float
    short: float
    coverage: float
    gini: float
    novelty: float


def dials(fitted: Fitted, held: Sequence[Listing], items: int) -> list[Dial]:
    """One row a setting, of a catalogue of so many items. Lists without a liked item count as 0."""
    everything = [np.arange(len(x.labels)) for x in held]
    scores = [fitted.reranker.scores(with_din(fitted.din, x, rows)) for x, rows in zip(held, everything, strict=True)]
    ranked = [np.argsort(-score, kind="stable") for score in scores]
    draws, plain = Bootstrap([x.user_id for x in held]), list[float]()
    out = []
    for least in DIALS:
        gains, shares, novelty = list[float](), list[float](), list[float]()
        times = np.zeros(items, dtype=np.int64)
        for x, order in zip(held, ranked, strict=True):
            best = order[placed(x.tail[order], np.zeros((len(order), 0), np.float32), K, least, None)]
            places = np.full(len(order), -np.inf, dtype=np.float32)
            places[best] = -np.arange(len(best))
            gains.append(ndcg(x.labels, places))
            shares.append(share(x.tail[best]))
            novelty.append(float(x.novelty[best].mean()))
            times[x.features.rows[best]] += 1
        plain = plain or gains
        out.append(
            Dial(
                least,
                float(np.mean(gains)),
                draws.difference(gains, plain),
                float(np.mean(shares)),
                float(np.mean(np.array(shares) < least - 1e-9)),
                float((times > 0).mean()),
                gini(times),
                float(np.mean(novelty)),
            )
        )
    return out

"""What exposure for the long tail, novelty and freshness cost, on the lists that a training chooses its models by.

The dials themselves are house rules (docs/how-to/rules.md): they are turned without a training, by this table. The
answers are ordered and filled by the served code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bentos.stages.exposure import placed, share
from bentos.stages.rules import Freshness, Rules
from training.evaluation import K
from training.intervals import Bootstrap, Interval
from training.rankers import Fitted, Listing, ndcg, with_din
from training.shown import gini

DIALS = {
    "": Rules(),
    **{f"least_tail_exposure {x}": Rules(least_tail_exposure=x) for x in (0.1, 0.2, 0.3, 0.5)},
    **{f"novelty {x}": Rules(novelty=x) for x in (0.1, 0.2, 0.5)},
    **{f"freshness {x}": Rules(freshness=Freshness(x)) for x in (0.5, 1.0, 2.0)},
}


@dataclass(frozen=True)
class Dial:
    """Answers of 20 under one rule. `change` is that of NDCG@10 against none, question by question.

    `tail`: mean share of exposure that goes to the tail; `short`: part of the answers in which it stayed below what the
    rule asks for, for want of candidates; `coverage`, `gini` and `novelty` as `training.shown` has them; `fresh`: mean
    of `bentos.stages.novelty.freshness`, with the half-life that rules have by default.
    """

    rule: str
    ndcg: float
    change: Interval
    tail: float
    short: float
    coverage: float
    gini: float
    novelty: float
    fresh: float


def dials(fitted: Fitted, held: Sequence[Listing], items: int) -> list[Dial]:
    """One row a rule, of a catalogue of so many items. Lists without a liked item count as 0."""
    everything = [np.arange(len(x.labels)) for x in held]
    scores = [fitted.reranker.scores(with_din(fitted.din, x, rows)) for x, rows in zip(held, everything, strict=True)]
    draws, plain = Bootstrap([x.user_id for x in held]), list[float]()
    out = []
    for name, rules in DIALS.items():
        gains, shares, novel, fresh = list[float](), list[float](), list[float](), list[float]()
        times, least = np.zeros(items, dtype=np.int64), rules.least_tail_exposure
        for x, said in zip(held, scores, strict=True):
            order = np.argsort(-(said + rules.leaning(x.novelty, x.fresh) * (said.std() or 1)), kind="stable")
            best = order[placed(x.tail[order], np.zeros((len(order), 0), np.float32), K, least, None)]
            places = np.full(len(order), -np.inf, dtype=np.float32)
            places[best] = -np.arange(len(best))
            gains.append(ndcg(x.labels, places))
            shares.append(share(x.tail[best]))
            novel.append(float(x.novelty[best].mean()))
            fresh.append(float(x.fresh[best].mean()))
            times[x.features.rows[best]] += 1
        plain = plain or gains
        out.append(
            Dial(
                name,
                float(np.mean(gains)),
                draws.difference(gains, plain),
                float(np.mean(shares)),
                float(np.mean(np.array(shares) < least - 1e-9)),
                float((times > 0).mean()),
                gini(times),
                float(np.mean(novel)),
                float(np.mean(fresh)),
            )
        )
    return out

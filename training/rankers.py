"""Fits the stages after recall on lists of candidates: DIN, then what re-ranks it, of which the best stays.

A list is what recall would have served at one instant, with what was liked next as its positive. Negatives are the
other candidates themselves: first what the session has shown in vain, up to a quarter of them, then the rest, drawn
evenly, so the models learn the order of what they will be shown. With negatives picked by a recall score, that score
itself becomes a sign of a negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightgbm
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import nn

from bentos.cascade import Features
from bentos.inputs import Floats
from bentos.stages.rank import FAR, Calibration, Din, gap_bucket, rank
from bentos.stages.rerank import Blend, Keep, LambdaRank, RankNet, Reranker
from training import calibration
from training.networks import DinModule, RankNetModule
from training.parallel import ALONE, Crew, add_up, part

SEED = 7
CONVERSION = 0.3
"""What the second head's loss weighs: 1 costs the first one 1% of its NDCG on MovieLens, .3 nothing that shows."""
LINEAR = 0.5
"""The linear path's part of ranking's logits: what a plain average of two models makes it, and nothing finer."""
PENALTY = 3e-3
"""Half of it times the squared length of the linear path's weights is added to its loss."""
PASSED = 0.25
"""The part of a list's negatives that are impressions, where there are so many."""
LEAST_TRAIN, LEAST_HELD = 50, 20
"""Lists with a positive that fitting needs."""


@dataclass(frozen=True, eq=False)
class Listing:
    """One question's candidates, which of them were liked, and which of these converted: float32 [m], 0 or 1.

    `passed` bool [m]: which the session had shown by then, and the user had not liked. `tail` bool [m]: which are in
    the long tail; `novelty` float [m]: in bits; `fresh` float32 [m]: 1 of what has just come to be.
    """

    features: Features
    labels: Floats
    converted: Floats
    user_id: str
    passed: npt.NDArray[np.bool_]
    tail: npt.NDArray[np.bool_]
    novelty: npt.NDArray[np.float64]
    fresh: Floats

    def sample(self, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """All positives and as many others as fit into `size`: of what was passed over up to `PASSED` of them, the rest
        evenly of all that is left. int64 [<= size].
        """
        positive = np.flatnonzero(self.labels > 0)
        negative = np.flatnonzero(self.labels <= 0)
        take = min(len(negative), size - len(positive))
        passed = negative[self.passed[negative]]
        first = rng.choice(passed, min(len(passed), int(PASSED * take)), replace=False)
        others = rng.choice(np.setdiff1d(negative, first), take - len(first), replace=False)
        return np.concatenate([positive, first, others]).astype(np.int64)


def ndcg(labels: Floats, scores: Floats, k: int = 10) -> float:
    """NDCG@k of one list, binary labels; equal scores keep the list's order."""
    top = np.argsort(-scores, kind="stable")[:k]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = discount[: int(min(k, labels.sum()))].sum()
    return float((labels[top] * discount[: len(top)]).sum() / best) if best else 0.0


def standardise(module: DinModule | RankNetModule, rows: Floats) -> None:
    """Set a network's input scaling from rows [n, f]."""
    module.mean.copy_(torch.from_numpy(rows.mean(0)))
    module.scale.copy_(torch.from_numpy(np.maximum(rows.std(0), 1e-3)))


def _padded(history: Sequence[Floats], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(1, max(len(h) for h in history))
    out, mask = np.zeros((len(history), longest, dim), np.float32), np.zeros((len(history), longest), bool)
    for n, h in enumerate(history):
        out[n, : len(h)], mask[n, : len(h)] = h, True
    return torch.from_numpy(out), torch.from_numpy(mask)


def _loss(din: DinModule, lists: Sequence[Listing], picks: Sequence[npt.NDArray[np.int64]]) -> torch.Tensor:
    """Softmax over the picks of each list against its positives' share (ListNet with binary labels), and
    `CONVERSION` times the log loss of the second head on the positives alone; summed.
    """
    dim = lists[0].features.vectors.shape[1]
    history, mask = _padded([x.features.history for x in lists], dim)
    ages, _ = _padded([x.features.ages_s[:, None] for x in lists], 1)
    scores, _ = din(
        torch.from_numpy(np.stack([x.features.inputs[p] for x, p in zip(lists, picks, strict=True)])),
        history,
        torch.from_numpy(gap_bucket(ages[:, :, 0].numpy())),
        mask,
        torch.from_numpy(np.stack([x.features.vectors[p] for x, p in zip(lists, picks, strict=True)])),
    )
    labels, converted = (
        torch.from_numpy(np.stack([of[p] for of, p in zip(which, picks, strict=True)]))
        for which in ([x.labels for x in lists], [x.converted for x in lists])
    )
    target, liked = labels / labels.sum(1, keepdim=True), labels > 0
    second = nn.functional.binary_cross_entropy_with_logits(scores[..., 1][liked], converted[liked], reduction="sum")
    return CONVERSION * second - (target * torch.log_softmax(scores[..., 0], 1)).sum()


def fit_din(train: Sequence[Listing], *, epochs: int, learning_rate: float, size: int = 40, batch: int = 64) -> Din:
    """Fit DIN on lists that have a positive each, and average its logits with those of a linear model."""
    rng, dim = np.random.default_rng(SEED), train[0].features.vectors.shape[1]
    torch.manual_seed(SEED)
    din = DinModule(train[0].features.inputs.shape[1], dim)
    standardise(din, np.concatenate([x.features.inputs[:50] for x in train]))
    optimizer = torch.optim.AdamW(din.parameters(), lr=learning_rate, weight_decay=1e-4)
    total = epochs * -(-len(train) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate * 2, total_steps=total)
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for begin in range(0, len(order), batch):
            lists = [train[i] for i in order[begin : begin + batch]]
            picks = [x.sample(size, rng) for x in lists]
            short = min(len(p) for p in picks)
            optimizer.zero_grad()
            if ours := part(list(zip(lists, picks, strict=True))):
                loss = _loss(din, [x for x, _ in ours], [p[:short] for _, p in ours]) / len(lists)
                loss.backward()  # type: ignore[no-untyped-call]
            add_up(din.parameters())
            nn.utils.clip_grad_norm_(din.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return beside(din.din(), fit_linear(train, din.mean.numpy(), din.scale.numpy()))


def fit_linear(train: Sequence[Listing], mean: Floats, scale: Floats, size: int = 100) -> Floats:
    """Weights [f] of the scaled inputs whose softmax over each list comes nearest to its positives' share.

    What is the same for all of a list, like the user's values, gets 0. Convex, so no seed but that of the negatives
    takes part.
    """
    rng = np.random.default_rng(SEED)
    picks = [x.sample(size, rng) for x in train]
    rows = np.concatenate([x.features.inputs[p] for x, p in zip(train, picks, strict=True)])
    rows -= mean
    rows /= scale
    np.clip(rows, -FAR, FAR, out=rows)
    target = np.concatenate([x.labels[p] / x.labels.sum() for x, p in zip(train, picks, strict=True)])
    sizes = np.array([len(p) for p in picks])
    starts = np.cumsum(sizes) - sizes

    def loss(w: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = (rows @ w.astype(np.float32)).astype(np.float64)
        z -= np.repeat(np.maximum.reduceat(z, starts), sizes)
        z -= np.repeat(np.log(np.add.reduceat(np.exp(z), starts)), sizes)
        off = (np.exp(z) - target).astype(np.float32) @ rows
        return float(-(target @ z) / len(train) + PENALTY / 2 * (w @ w)), off / len(train) + PENALTY * w

    weights: Floats = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x.astype(np.float32)
    return weights


def beside(din: Din, linear: Floats) -> Din:
    """The same network with a linear path in its logits of liking, `LINEAR` of them; conversion stays as it is."""
    weights = {name: values.copy() for name, values in din.weights.items()}
    for name in ("head.4.weight", "head.4.bias"):
        weights[name][0] *= np.float32(1 - LINEAR)
    return Din(weights | {"linear": np.float32(LINEAR) * linear})


def fit_ranknet(
    rows: Sequence[Floats], labels: Sequence[Floats], *, epochs: int = 6, batch: int = 64, learning_rate: float = 5e-3
) -> RankNet:
    """Fit RankNet: in each list every positive should score above every negative (logistic loss on the difference)."""
    torch.manual_seed(SEED)
    net = RankNetModule(rows[0].shape[1])
    standardise(net, np.concatenate(rows))
    inputs, there = _padded(rows, rows[0].shape[1])
    liked, _ = _padded([y[:, None] for y in labels], 1)
    positive = (liked[:, :, 0] > 0) & there
    negative = (liked[:, :, 0] <= 0) & there
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-4)
    rng = np.random.default_rng(SEED)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(rows)))
        for begin in range(0, len(rows), batch):
            pick = order[begin : begin + batch]
            scores, above, below = net(inputs[pick]), positive[pick], negative[pick]
            pairs = above[:, :, None] & below[:, None, :]
            costs = nn.functional.softplus(scores[:, None, :] - scores[:, :, None]) * pairs
            loss = (costs.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.ranknet()


def fit_lambdarank(
    rows: Sequence[Floats],
    labels: Sequence[Floats],
    names: Sequence[str],
    held_rows: Sequence[Floats],
    held: Sequence[Floats],
) -> LambdaRank:
    """Fit LambdaMART, stopped early on the held-out lists."""
    train = lightgbm.Dataset(
        np.concatenate(rows), np.concatenate(labels), group=[len(r) for r in rows], feature_name=list(names)
    )
    valid = lightgbm.Dataset(
        np.concatenate(held_rows), np.concatenate(held), group=[len(r) for r in held_rows], reference=train
    )
    booster = lightgbm.train(
        {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "learning_rate": 0.05,
            "num_leaves": 31,
            "min_data_in_leaf": 50,
            "feature_fraction": 0.7,
            "lambdarank_truncation_level": 20,
            "max_bin": 63,
            "num_threads": 1,  # two threads on two busy cores wait for each other: 2.5 times as long
            "deterministic": True,
            "seed": SEED,
            "verbose": -1,
        },
        train,
        300,
        valid_sets=[valid],
        callbacks=[lightgbm.early_stopping(20, verbose=False)],
    )
    return LambdaRank(booster)


def with_din(din: Din, listing: Listing, picks: npt.NDArray[np.int64]) -> Floats:
    """The inputs of re-ranking: ranking's, and its logit. float32 [len(picks), f + 1]."""
    f = listing.features
    ranked = rank(din, f.inputs[picks], f.vectors[picks], f.history, f.ages_s)
    return np.concatenate([f.inputs[picks], ranked.logits[:, None]], 1)


def _all(din: Din, listing: Listing) -> Floats:
    return with_din(din, listing, np.arange(len(listing.labels)))


def better(found: Mapping[str, npt.NDArray[np.float64]], plain: str) -> str:
    """The best by its mean over the lists, if it is clearly better than the plain one; else the plain one.

    Clearly: the 95% interval of the mean difference lies above zero. What is only seemingly better on a thousand lists
    costs time and mostly loses on the next thousand.
    """
    best = max(found, key=lambda name: float(found[name].mean()))
    gain = found[best] - found[plain]
    return best if gain.mean() > 1.96 * gain.std() / np.sqrt(len(gain)) else plain


@dataclass(frozen=True)
class Fitted:
    """The stages after recall; `validation` is NDCG@10 of each candidate on the held-out lists."""

    din: Din
    reranker: Reranker
    calibration: Calibration
    validation: dict[str, float]


def validate(din: Din, held: Sequence[Listing]) -> float:
    """Mean NDCG@10 of DIN's own order over these lists."""
    return float(np.mean([ndcg(x.labels, _all(din, x)[:, -1]) for x in held]))


def fit(
    train: Sequence[Listing],
    held: Sequence[Listing],
    names: Sequence[str],
    *,
    size: int = 60,
    din_epochs: int,
    din_rate: float,
    crew: Crew = ALONE,
) -> Fitted:
    """Fit all stages after recall. Raises `ValueError` when there are too few lists with a positive to learn from."""
    asked = held
    train, held = [x for x in train if x.labels.any()], [x for x in held if x.labels.any()]
    if len(train) < LEAST_TRAIN or len(held) < LEAST_HELD:
        raise ValueError(
            f"{len(train)} training and {len(held)} validation lists have a liked item among their candidates; "
            f"at least {LEAST_TRAIN} and {LEAST_HELD} are needed: feed in more events (`freshet replay`, "
            "`freshet simulate`) and train again"
        )
    din = crew.fit(partial(fit_din, train, epochs=din_epochs, learning_rate=din_rate))
    rng = np.random.default_rng(SEED)
    picks = [x.sample(size, rng) for x in train]
    rows = [with_din(din, x, p) for x, p in zip(train, picks, strict=True)]
    labels = [x.labels[p] for x, p in zip(train, picks, strict=True)]
    stop, choose = held[::2], held[1::2]  # what LambdaRank stops by flatters it, so it is not chosen by the same lists
    ranknet, lambdarank = (
        fit_ranknet(rows, labels),
        fit_lambdarank(rows, labels, [*names, "din"], [_all(din, x) for x in stop], [x.labels for x in stop]),
    )
    spreads = [float(np.concatenate([model.scores(x) for x in rows]).std()) for model in (ranknet, lambdarank)]
    blend = Blend(ranknet, lambdarank, spreads[1] / max(spreads[0], 1e-6))
    choices: dict[str, Reranker] = {"DIN": Keep(), "RankNet": ranknet, "LambdaRank": lambdarank, "Blend": blend}
    lists = [(_all(din, x), x.labels) for x in choose]
    found = {
        name: np.array([ndcg(liked, model.scores(inputs)) for inputs, liked in lists])
        for name, model in choices.items()
    }
    best = better(found, "DIN")
    calibrated = calibration.fit([(_all(din, x)[:, -1], x.labels) for x in asked])
    return Fitted(din, choices[best], calibrated, {name: float(values.mean()) for name, values in found.items()})

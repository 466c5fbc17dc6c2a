"""Ranking: DIN, a network that weighs the user's history by what each part of it says about the candidate.

The candidate attends to the history (Zhou et al., KDD 2018); the first layer of the attention is factorised,
`W [h, c, h - c, h * c] = (W1 + W3) h + ((W2 - W3) + W4 h) c`, where `W4 h` scales the columns of W4: one product of the
candidates with a matrix that the history makes gives the same numbers for a sixth of the time.
Beside the network stands a linear model of the same inputs; the logits of both are averaged (`training.rankers`).
It is computed in NumPy: serving starts without torch, and answers a little sooner. The network that learns is
`training.networks.DinModule`; a test holds the two against each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from bentos.inputs import Floats, Indices

FAR = 5.0
"""Standard deviations. An input beyond them counts as these: a score that was next to nothing in all lists of training,
and is large once, would otherwise outweigh all others."""
ATTENTION_UNITS = 32
GAPS = 8
"""Buckets of the time since a history item: powers of four of a minute."""


def gap_bucket(ages_s: Floats) -> Indices:
    """Bucket of an age: 0 up to a minute, then one for each factor of four. int64, same shape."""
    factors = np.log2(np.maximum(ages_s, np.float32(1)) / np.float32(60)) / 2 + 1
    return np.clip(factors, 0, GAPS - 1).astype(np.int64)


class Calibration(NamedTuple):
    """How log-shares become probabilities: sigmoid(slope * share + offset). Fitted by `training.calibration`."""

    slope: float = 1.0
    offset: float = 0.0


PLAIN = Calibration()
"""The shares as they are."""


def log_shares(logits: Floats) -> Floats:
    """The log-softmax of a list's logits. float32 [m]."""
    top = logits.max()
    shares: Floats = logits - top - np.log(np.exp(logits - top).sum())
    return shares


def probabilities(logits: Floats, calibration: Calibration) -> Floats:
    """For each candidate the probability that it is what the user likes next. float32 [m]."""
    likely: Floats = expit(calibration.slope * log_shares(logits) + calibration.offset).astype(np.float32)
    return likely


class Ranked(NamedTuple):
    """What ranking says of m candidates.

    `logits` float32 [m] of what is liked next, by which they are ordered; `conversion` float32 [m], log-odds that it
    leads to a conversion once it is liked; `attention` float32 [m, t].
    """

    logits: Floats
    conversion: Floats
    attention: Floats


@dataclass(frozen=True, eq=False)
class Din:
    """The network for one question: its weights, float32, by the names of `training.networks.DinModule`."""

    weights: Mapping[str, Floats]

    def project(self, vectors: Floats) -> Floats:
        """Item vectors [n, d] as attention compares them, [n, u]."""
        return self._linear(vectors, "project")

    def attention(self, history: Floats, gaps: Indices, candidates: Floats) -> tuple[Floats, Floats, Floats]:
        """Projected history [t, u], projected candidates [m, u], attention logits [m, t]."""
        w, c = self.weights, self.project(candidates)
        h = self.project(history) + w["gap.weight"][gaps]
        t, u = h.shape
        folded = (w["of_candidate.weight"] + w["of_both.weight"] * h[:, None, :]).reshape(t * u, u)
        of_history = (h @ w["of_history.weight"].T + w["of_candidate.bias"]).reshape(t * u, 1)
        one = np.ones((len(c), 1), dtype=np.float32)  # takes the history's part along in the product
        first = np.concatenate([c, one], 1) @ np.concatenate([folded, of_history], 1).T
        np.maximum(first, 0.0, out=first)
        logits: Floats = (first.reshape(-1, u) @ w["attend.weight"][0]).reshape(-1, t) + w["attend.bias"]
        return h, c, logits

    def scores(self, rows: Floats, pooled: Floats, candidates: Floats) -> Floats:
        """Of liking and of conversion: logits [m, 2]. `pooled` [m, u] is what attention made of the history."""
        w = self.weights
        scaled = np.clip((rows - w["mean"]) / w["scale"], -FAR, FAR)
        x = np.concatenate([scaled, candidates, pooled, pooled * candidates], 1)
        for layer in (0, 2):
            x = self._linear(x, f"head.{layer}")
            x = np.where(x > 0, x, x * w[f"head.{layer + 1}.weight"])
        out = self._linear(x, "head.4")
        out[:, 0] += scaled @ w["linear"]
        return out

    def _linear(self, x: Floats, layer: str) -> Floats:
        out: Floats = x @ self.weights[f"{layer}.weight"].T
        out += self.weights[f"{layer}.bias"]
        return out


def rank(din: Din, inputs: Floats, vectors: Floats, history: Floats, ages_s: Floats) -> Ranked:
    """What DIN says of the candidates of one question.

    `inputs` float32 [m, f], `vectors` [m, d], `history` [t, d], `ages_s` [t]; without any history t is 1 and the
    attention 0.
    """
    if len(history):
        h, c, logits = din.attention(history, gap_bucket(ages_s), vectors)
        attention = np.exp(logits - logits.max(1, keepdims=True))
        attention /= attention.sum(1, keepdims=True)
        pooled = attention @ h
    else:
        c = din.project(vectors)
        attention, pooled = np.zeros((len(vectors), 1), np.float32), np.zeros_like(c)
    liked, conversion = np.ascontiguousarray(din.scores(inputs, pooled, c).T)
    return Ranked(liked, conversion, attention)

"""Ranking: DIN, a network that weighs the user's history by what each part of it says about the candidate.

The candidate attends to the history (Zhou et al., KDD 2018); the first layer of the attention is factorised,
`W [h, c, h - c, h * c] = (W1 + W3) h + ((W2 - W3) + W4 h) c`, where `W4 h` scales the columns of W4: one product of the
candidates with a matrix that the history makes gives the same numbers for a sixth of the time.
Losses and loops are left to `training.rankers`.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from bentos.inputs import Floats

ATTENTION_UNITS = 32
GAPS = 8
"""Buckets of the time since a history item: powers of four of a minute."""


def gap_bucket(ages_s: Tensor) -> Tensor:
    """Bucket of an age: 0 up to a minute, then one for each factor of four. int64, same shape."""
    return (torch.log2(torch.clamp(ages_s, min=1.0) / 60.0) / 2 + 1).clamp(0, GAPS - 1).long()


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
    """What ranking says of m candidates: `logits` float32 [m] of what is liked next, by which they are ordered;
    `conversion` float32 [m], log-odds that it leads to a conversion once it is liked; `attention` float32 [m, t]."""

    logits: Floats
    conversion: Floats
    attention: Floats


class Din(nn.Module):
    """`inputs` columns (see `bentos.inputs.input_names`), item vectors of `dim`. Two heads share all but one row."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.project = nn.Linear(dim, ATTENTION_UNITS)
        self.gap = nn.Embedding(GAPS, ATTENTION_UNITS)
        self.of_history = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS, bias=False)
        self.of_candidate = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS)
        self.of_both = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS, bias=False)
        self.attend = nn.Linear(ATTENTION_UNITS, 1)
        self.head = nn.Sequential(
            nn.Linear(inputs + 3 * ATTENTION_UNITS, hidden),
            nn.PReLU(),
            nn.Linear(hidden, 32),
            nn.PReLU(),
            nn.Linear(32, 2),
        )

    def attention(self, history: Tensor, gaps: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projected history [b, t, u], projected candidates [b, m, u], attention logits [b, m, t]."""
        h = self.project(history) + self.gap(gaps)
        c = self.project(candidates)
        b, t, u = h.shape
        folded = torch.addcmul(self.of_candidate.weight, self.of_both.weight, h[:, :, None, :])  # into the weights
        of_history = (self.of_history(h) + self.of_candidate.bias).reshape(b, 1, t * u)
        first = torch.baddbmm(of_history, c, folded.reshape(b, t * u, u).transpose(1, 2)).relu_()
        logits = first.reshape(b, -1, t, u) @ self.attend.weight[0] + self.attend.bias
        return h, c, logits

    def forward(
        self, rows: Tensor, history: Tensor, gaps: Tensor, mask: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of liking and of conversion: logits [b, m, 2]; attention weights [b, m, t].

        `rows` [b, m, inputs] raw; `history` [b, t, dim], `gaps` int64 [b, t], `mask` bool [b, t], True where there is
        an item; `candidates` [b, m, dim].
        """
        h, c, logits = self.attention(history, gaps, candidates)
        weights = torch.softmax(logits.masked_fill(~mask[:, None, :], -1e9), -1) * mask[:, None, :]
        pooled = weights @ h
        scaled = (rows - self.mean) / self.scale
        scores: Tensor = self.head(torch.cat([scaled, c, pooled, pooled * c], -1))
        return scores, weights


def rank(din: Din, inputs: Floats, vectors: Floats, history: Floats, ages_s: Floats) -> Ranked:
    """What DIN says of the candidates of one question.

    `inputs` float32 [m, f], `vectors` [m, d], `history` [t, d], `ages_s` [t]; without any history t is 1 and the
    attention 0.
    """
    mask = np.ones(len(history), bool)
    if len(history) == 0:  # softmax needs a place to look at, so there is one, masked
        history, ages_s, mask = np.zeros((1, vectors.shape[1]), np.float32), np.zeros(1, np.float32), np.zeros(1, bool)
    with torch.inference_mode():
        scores, attention = din(
            torch.from_numpy(inputs)[None],
            torch.from_numpy(history)[None],
            gap_bucket(torch.from_numpy(ages_s))[None],
            torch.from_numpy(mask)[None],
            torch.from_numpy(vectors)[None],
        )
    liked, conversion = np.ascontiguousarray(scores[0].numpy().T)
    return Ranked(liked, conversion, attention[0].numpy())

"""Makes ranking's scores into probabilities, and measures how far they can be believed.

Ranking is fitted on lists, so its logits mean something within a list only: what is calibrated is their log-softmax
over the candidates (`bentos.stages.rank.probabilities`), by a logistic regression of two parameters (Platt, 1999).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from bentos.inputs import Floats
from bentos.stages.rank import Calibration, log_shares

BINS = 15


def fit(lists: Sequence[tuple[Floats, Floats]]) -> Calibration:
    """From (logits [m], labels [m]) of lists as they were served, with and without a liked item among them."""
    shares = np.concatenate([log_shares(logits) for logits, _ in lists]).astype(np.float64)
    labels = np.concatenate([labels for _, labels in lists]).astype(np.float64)

    def loss(ab: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = ab[0] * shares + ab[1]
        off = expit(z) - labels
        return float(np.mean(np.logaddexp(0, z) - labels * z)), np.array([np.mean(off * shares), np.mean(off)])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return Calibration(float(slope), float(offset))


class Reliability:
    """Collects what was promised and what came, of every candidate and of those that rank first."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._said: list[Floats] = []
        self._came: list[Floats] = []

    def add(self, said: Floats, came: Floats) -> None:
        """One question: probabilities [m], best first, and labels [m]."""
        self._said.append(said)
        self._came.append(came)

    def measures(self) -> dict[str, float]:
        """`ECE` over all candidates; over the first ones its own, their mean probability, and how many came true."""
        said, came = (np.concatenate(parts).astype(np.float64) for parts in (self._said, self._came))
        top, true = (
            np.concatenate([part[: self._first] for part in parts]).astype(np.float64)
            for parts in (self._said, self._came)
        )
        n = self._first
        return {
            "ECE": ece(said, came),
            f"ECE of the first {n}": ece(top, true),
            f"promised of the first {n}": float(top.mean()),
            f"came of the first {n}": float(true.mean()),
        }


def ece(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> float:
    """Expected calibration error: how far predicted and observed shares lie apart, over bins of equally many."""
    order = np.argsort(probabilities, kind="stable")
    parts = zip(np.array_split(probabilities[order], BINS), np.array_split(labels[order], BINS), strict=True)
    return sum(len(p) * abs(float(p.mean() - y.mean())) for p, y in parts if len(p)) / len(order)

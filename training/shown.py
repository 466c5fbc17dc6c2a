"""What a model shows, beyond being right: how much of the catalogue, how evenly, how new, how varied."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bentos.inputs import ItemMatrix
from bentos.stages.exposure import share, tail
from bentos.stages.novelty import novelty

EVERY = 5
"""Novelty, likes, diversity and exposure are taken of every fifth answer: they cost more than that of a small model."""


def gini(times: npt.NDArray[np.int64]) -> float:
    """How unevenly items were shown, from how often each was: 0 when all alike, 1 when one takes all."""
    n, total = len(times), times.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(times) / (n * total)) if total else 0.0


class Shown:
    """The answers of one model, counted as they come."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._answers = 0
        self._taken: list[tuple[float, float, float, float]] = []

    def add(self, items: ItemMatrix, best: Sequence[str]) -> None:
        """One answer, item ids."""
        self._times.update(best)
        if self._answers % EVERY == 0 and best:
            rows = [items.index[item_id] for item_id in best]
            likes = items.column("likes_ever")[rows]
            held = items.categories[rows]
            alike = np.triu(held @ held.T > 0, 1).sum() / max(1, len(rows) * (len(rows) - 1) / 2)
            bits = novelty(items)[rows]
            self._taken.append((float(bits.mean()), float(likes.mean()), 1.0 - float(alike), share(tail(items)[rows])))
        self._answers += 1

    def measures(self, items: int) -> dict[str, float]:
        """Of a catalogue of so many items.

        `coverage`: share of the items that were shown at all. `Gini`: of how often each was. `novelty`: mean of what is
        shown. `likes`: mean likes of what is shown, the popularity bias. `diversity`: share of pairs within an answer
        that have no category in common. `tail`: the long tail's share of an answer's exposure.
        """
        times = np.zeros(max(items, len(self._times)), dtype=np.int64)
        times[: len(self._times)] = list(self._times.values())
        taken = np.mean(self._taken, axis=0).tolist() if self._taken else (0.0, 0.0, 0.0, 0.0)
        of_shown = dict(zip(("novelty", "likes", "diversity", "tail"), taken, strict=True))
        return {"coverage": len(self._times) / max(items, 1), "Gini": gini(times), **of_shown}

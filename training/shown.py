"""What a model shows, beyond being right: how much of the catalogue, how evenly, how new, how varied."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bentos.inputs import ItemMatrix

EVERY = 5
"""Novelty, likes and diversity are taken of every fifth answer: they cost more than the answer of a small model."""


class Shown:
    """The answers of one model, counted as they come."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._answers = 0
        self._taken: list[tuple[float, float, float]] = []

    def add(self, items: ItemMatrix, best: Sequence[str]) -> None:
        """One answer, item ids."""
        self._times.update(best)
        if self._answers % EVERY == 0 and best:
            rows = [items.index[item_id] for item_id in best]
            likes = items.column("likes_ever")
            share = (likes[rows] + 1.0) / (likes.sum() + len(likes))
            held = items.categories[rows]
            alike = np.triu(held @ held.T > 0, 1).sum() / max(1, len(rows) * (len(rows) - 1) / 2)
            self._taken.append((float(-np.log2(share).mean()), float(likes[rows].mean()), 1.0 - float(alike)))
        self._answers += 1

    def measures(self, items: int) -> dict[str, float]:
        """Of a catalogue of so many items.

        `coverage`: share of the items that were shown at all. `Gini`: of how often each was, 0 when all alike, 1 when
        one takes all. `novelty`: mean of -log2 of an item's share of all likes, bits. `likes`: mean likes of what is
        shown, the popularity bias. `diversity`: share of pairs within an answer that have no category in common.
        """
        times = np.zeros(max(items, len(self._times)))
        times[: len(self._times)] = sorted(self._times.values())
        times.sort()
        n, total = len(times), times.sum()
        gini = float((2 * np.arange(1, n + 1) - n - 1) @ times / (n * total)) if total else 0.0
        novelty, likes, diversity = np.mean(self._taken, axis=0).tolist() if self._taken else (0.0, 0.0, 0.0)
        coverage = len(self._times) / max(items, 1)
        return {"coverage": coverage, "Gini": gini, "novelty": novelty, "likes": likes, "diversity": diversity}

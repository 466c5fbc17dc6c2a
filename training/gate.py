"""What a bundle must pass before it is registered: a worse one never becomes champion, nor even a candidate.

It must answer the edge cases; it must not be clearly worse than popularity; and it must not be clearly worse than the
champion on questions that are new to both. "Clearly" is said of a 95% interval of the paired difference in NDCG@10 that
lies below zero as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.intervals import Interval

LEAST = 200
"""Questions that are new to both, below which the champion cannot be compared."""
FLOOR = "popularity, 7 days"


@dataclass(frozen=True)
class Rival:
    """What came of asking the champion: the difference over so many questions, or why there is none."""

    over: Interval | None
    questions: int
    missing: str


@dataclass(frozen=True)
class Gate:
    """`reasons` why a bundle is refused (none: it may be registered), and what the comparisons were.

    `over_champion` is None where the champion was not compared; `champion` says in words what came of it.
    """

    reasons: list[str]
    over_popularity: Interval
    over_champion: Interval | None
    champion: str


def judge(broken: Sequence[str], over_popularity: Interval, rival: Rival) -> Gate:
    """`broken` are the edge cases that failed; differences are the new bundle's NDCG@10 over the other's."""
    reasons = [f"an edge case fails: {what}" for what in broken]
    if not over_popularity.high >= 0:  # so also where it is no number
        reasons.append(f"it is worse than {FLOOR} by {_words(over_popularity)}")
    if rival.over is None:
        return Gate(reasons, over_popularity, None, f"not compared with the champion: {rival.missing}")
    if rival.questions < LEAST:
        few = f"not compared with the champion: {rival.questions} questions are new to both, {LEAST} are needed"
        return Gate(reasons, over_popularity, None, few)
    if not rival.over.high >= 0:
        reasons.append(f"it is worse than the champion by {_words(rival.over)} over {rival.questions:,} questions")
    told = f"over the champion {rival.over.mean:+.4f} on {rival.questions:,} questions new to both"
    return Gate(reasons, over_popularity, rival.over, told)


def _words(difference: Interval) -> str:
    return f"{-difference.mean:.4f} NDCG@10 (95%: {-difference.high:.4f} to {-difference.low:.4f})"

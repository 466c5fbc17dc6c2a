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
class Gate:
    """`reasons` why a bundle is refused (none: it may be registered), and what the comparisons were."""

    reasons: list[str]
    over_popularity: Interval
    over_champion: Interval | None
    champion_questions: int = 0


def judge(
    broken: Sequence[str], over_popularity: Interval, over_champion: Interval | None, champion_questions: int
) -> Gate:
    """`broken` are the edge cases that failed; differences are the new bundle's NDCG@10 over the other's."""
    reasons = [f"an edge case fails: {what}" for what in broken]
    if over_popularity.high < 0:
        reasons.append(f"it is worse than {FLOOR} by {_words(over_popularity)}")
    if over_champion is not None and champion_questions >= LEAST and over_champion.high < 0:
        reasons.append(
            f"it is worse than the champion by {_words(over_champion)} over {champion_questions:,} questions"
        )
    return Gate(reasons, over_popularity, over_champion, champion_questions)


def _words(difference: Interval) -> str:
    return f"{-difference.mean:.4f} NDCG@10 (95%: {-difference.high:.4f} to {-difference.low:.4f})"

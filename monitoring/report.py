"""What a verification says: checks with what they compared and what differed, and the counts of every partition."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 5
"""Differences that are quoted; all are counted."""


@dataclass
class Check:
    """One comparison: how much was compared, how much differed, and the first differences in words."""

    name: str
    compared: int = 0
    mismatches: int = 0
    examples: list[str] = field(default_factory=list)

    def differ(self, example: str, n: int = 1) -> None:
        """Count a difference."""
        self.mismatches += n
        if len(self.examples) < EXAMPLES:
            self.examples.append(example if len(example) <= 400 else example[:400] + "...")

    def same_set(self, want: Iterable[Any], got: Iterable[Any], what: str) -> None:
        """Compare two sets; each member that only one of them has is a difference."""
        want, got = set(want), set(got)
        self.compared += len(want)
        for side, only in (("missing", want - got), ("unexpected", got - want)):
            if only:
                self.differ(f"{len(only)} {what} {side}, e.g. {min(only, key=repr)!r}", len(only))


@dataclass(frozen=True)
class Partition:
    """Counts of one partition of `events`, as the oracle judged its records."""

    partition: int
    events: int
    applied: int
    late: int
    duplicate: int
    rejected: int


@dataclass(frozen=True)
class ByTime:
    """Answers against what had happened by their instant: `behind` of `answers` did not know of every event yet.

    `lag_ms`: how long before the answer the oldest event that it missed had arrived (p50, p99, worst). `unread` more
    answers could not read their user, because the online store did not answer.
    """

    answers: int
    behind: int
    lag_ms: dict[str, float]
    unread: int = 0

    @property
    def share(self) -> float:
        return self.behind / self.answers if self.answers else 0.0


@dataclass(frozen=True)
class VerifyReport:
    """The verdict. `at` is when it was given (epoch microseconds); `users` and `items` how many were compared."""

    at: int
    seconds: float
    users: int
    items: int
    partitions: list[Partition]
    checks: list[Check]
    by_time: ByTime | None = None

    @property
    def mismatches(self) -> int:
        return sum(check.mismatches for check in self.checks)

    @property
    def ok(self) -> bool:
        """Nothing differed, and there was something to compare."""
        return self.mismatches == 0 and any(check.compared for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """A stable form: the fields, `ok` and `mismatches`."""
        return asdict(self) | {"ok": self.ok, "mismatches": self.mismatches}

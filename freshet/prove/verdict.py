"""What a run comes to: a verdict, what it rests on, and how long recovery took."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from monitoring.report import Check

ENDED_WELL = "every program ended by our kill, loudly with 70, or politely (-15: before it was up)"
"""The one check that is not about what the stores hold."""


class Verdict(StrEnum):
    """`NODATA`: the run proves nothing, as too little happened in it."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    HANG = "HANG"
    NODATA = "NODATA"


@dataclass
class Injected:
    """One fault: when, to whom, how much work was in progress, and after how long all its partitions moved again."""

    at_s: float
    fault: str
    detail: str
    place: str
    behind: int
    recovered_s: float | None = None


@dataclass
class Report:
    """All that a run says. `sent` counts records, `applied` to `rejected` what the oracle made of them."""

    scenario: str
    seed: int
    verdict: Verdict = Verdict.NODATA
    why: str = ""
    sent: int = 0
    acknowledged: int = 0
    applied: int = 0
    late: int = 0
    duplicate: int = 0
    rejected: int = 0
    lost: int = 0
    doubled: int = 0
    users: int = 0
    items: int = 0
    fingerprint: str = ""
    kills: int = 0
    exits: dict[str, dict[int, int]] = field(default_factory=dict)
    faults: list[Injected] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    line_s: float = 0.0
    check_s: float = 0.0
    folder: str = ""
    again: str = ""

    @property
    def slowest_s(self) -> float | None:
        """The slowest recovery."""
        return max((f.recovered_s for f in self.faults if f.recovered_s is not None), default=None)

    @property
    def mismatches(self) -> int:
        return sum(check.mismatches for check in self.checks)

    @property
    def caught(self) -> bool:
        """Whether the stores show that something is wrong: what a negative control must come to."""
        stores = [check for check in self.checks if check.name != ENDED_WELL]
        return any(check.mismatches for check in stores)

    def to_json(self) -> dict[str, Any]:
        """A stable form: the fields, and `mismatches` and `slowest_s`."""
        return asdict(self) | {"mismatches": self.mismatches, "slowest_s": self.slowest_s}

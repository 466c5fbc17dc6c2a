"""The short form of the proof: a whole line, struck, and judged; and a broken one, which must be caught."""

from pathlib import Path

import pytest

from freshet.prove.run import Order, prove
from freshet.prove.scenarios import CONTROLS, SCENARIOS
from freshet.prove.verdict import Verdict
from freshet.settings import Settings

pytestmark = [pytest.mark.slow]


def test_nothing_is_lost_or_doubled_by_kills_a_zombie_and_retries(tmp_path: Path) -> None:
    order = Order(SCENARIOS["short"], events=15_000, kills=5, workers=2, seed=20_261_120, rate=1_500)
    report = prove(order, tmp_path / "run", Settings().cache_dir, lambda *_: None)
    assert (report.verdict, report.why) == (Verdict.PASSED, "")
    assert (report.lost, report.doubled, report.mismatches) == (0, 0, 0)
    assert report.applied > 10_000
    assert report.duplicate > 1_000
    assert report.kills == 5
    assert all(fault.behind > 0 and fault.recovered_s is not None for fault in report.faults)


def test_a_line_that_forgets_what_it_has_seen_is_caught(tmp_path: Path) -> None:
    order = Order(CONTROLS["no-dedup"], events=6_000, kills=1, workers=1, seed=1, rate=1_500)
    report = prove(order, tmp_path / "run", Settings().cache_dir, lambda *_: None)
    assert report.verdict is Verdict.FAILED
    assert report.caught
    assert report.doubled > 100

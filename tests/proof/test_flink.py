"""The line on Flink, killed and judged. Needs the environment that `make flink` makes."""

from pathlib import Path

import pytest

from freshet.prove.run import Order, prove
from freshet.prove.scenarios import SCENARIOS
from freshet.prove.verdict import Verdict
from freshet.settings import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Settings().flink_env.exists(), reason="no PyFlink here: `make flink` installs it"),
]


def test_nothing_is_lost_or_doubled_when_flink_is_killed_and_starts_from_its_checkpoint(tmp_path: Path) -> None:
    order = Order(SCENARIOS["checkpoints"], events=20_000, kills=2, workers=2, seed=1, rate=1_000, engine="flink")
    report = prove(order, tmp_path / "run", Settings().cache_dir, lambda *_: None)
    assert (report.verdict, report.why) == (Verdict.PASSED, "")
    assert (report.lost, report.doubled, report.mismatches) == (0, 0, 0)
    assert report.applied > 5_000
    assert report.kills == 2

"""The harness itself: its workload, its points, its history. Nothing here needs a server."""

import errno
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from freshet.prove import launch
from freshet.prove.history import History
from freshet.prove.scenarios import CONTROLS, SCENARIOS
from freshet.prove.verdict import Report
from freshet.prove.workload import Shape, records
from monitoring.report import Check


def test_a_seed_makes_the_same_events_again() -> None:
    assert list(records(2_000, 7, Shape())) == list(records(2_000, 7, Shape()))
    assert list(records(100, 7, Shape())) != list(records(100, 8, Shape()))


def test_the_workload_repeats_itself_as_often_as_it_should_and_is_poisoned() -> None:
    found = Counter(records(20_000, 1, Shape(retries=0.1, late_retries=0.3, poison=0.05)))
    ids = Counter(value for _, value in found.elements() if b'"event_id":"1-' in value)
    assert sum(n - 1 for n in ids.values()) == pytest.approx(2_000, rel=0.2)
    assert sum(n for (_, value), n in found.items() if b'"event_id":"1-' not in value) > 500


def test_a_silent_partition_gets_nothing() -> None:
    from streams.topics import partition_of

    homes = Counter(partition_of(key, 4) for key, _ in records(2_000, 1, Shape(silent=True)))
    assert homes.keys() == {1, 2, 3}


@pytest.mark.parametrize("point", launch.POINTS)
def test_every_point_names_a_function_that_is_there(point: str) -> None:
    owner, name = launch.find(launch.POINTS[point][0])
    assert callable(getattr(owner, name))


def test_an_order_strikes_at_the_nth_time_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch.POINTS, "here", ("tests.proof.test_harness:_reached", "before"))
    launch.arm("here", "enospc", 3)
    here = launch.find("tests.proof.test_harness:_reached")[0]
    assert [here._reached(), here._reached()] == [1, 1]
    with pytest.raises(OSError, match="No space left") as full:
        here._reached()
    assert full.value.errno == errno.ENOSPC
    assert here._reached() == 1


def _reached() -> int:
    return 1


@pytest.mark.parametrize("scenario", [*SCENARIOS.values(), *CONTROLS.values()], ids=lambda scenario: scenario.name)
def test_the_same_seed_makes_the_same_faults(scenario: "object") -> None:
    def faults() -> list[str]:
        return [repr(vars(fault)) for fault in scenario.faults(20, random.Random(3))]  # type: ignore[attr-defined]

    assert faults() == faults() != []


def test_the_history_is_on_disk_at_once(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.note("fault", fault="KillWorker")
    assert [json.loads(line)["what"] for line in (tmp_path / "history.jsonl").read_text().splitlines()] == ["fault"]
    history.close()


def test_a_control_is_caught_by_a_store_and_not_by_how_a_program_ended() -> None:
    report = Report("x", 1)
    assert not report.caught
    report.checks = [Check("every program ended by our kill, loudly with 70, or politely (-15: before it was up)")]
    report.checks[0].differ("worker0 ended with 1")
    assert not report.caught
    report.checks.append(Check("Redis"))
    report.checks[1].differ("another state")
    assert report.caught


def test_the_late_retries_reach_back_as_far_as_the_dedup_window_and_no_further() -> None:
    """65,536 applied ids of each of four partitions; an hour of events is 180,000, a quarter of them in each."""
    shape = Shape(retries=0.15, late_retries=1.0)
    first: dict[bytes, int] = {}
    furthest = 0
    for i, (_, value) in enumerate(islice(records(30_000, 1, shape), 30_000)):
        furthest = max(furthest, i - first.setdefault(value, i)) if b'"event_id":"1-' in value else furthest
    assert 2_000 < furthest < 180_000

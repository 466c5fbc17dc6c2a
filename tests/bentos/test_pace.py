"""What a process says of how busy it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.pace import FIRST_S, LATELY_S, Pace


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=50))
def test_the_share_is_a_share_and_the_mean_lies_within_what_was_seen(answers: list[tuple[float, float]]) -> None:
    pace, now = Pace(), 0.0
    for idle, seconds in answers:
        begun, now = now + idle, now + idle + seconds
        pace.took(begun, now)
        assert 0 <= pace.busy(now) <= 1
    seen = [FIRST_S, *(seconds for _, seconds in answers)]
    assert min(seen) - 1e-12 <= pace.mean_s <= max(seen) + 1e-12


@pytest.mark.parametrize(("idle_s", "seconds"), [(0.0, 0.01), (0.01, 0.01), (0.03, 0.01)])
def test_in_the_long_run_it_is_the_part_of_the_time_that_answers_take(idle_s: float, seconds: float) -> None:
    pace, now, shares = Pace(), 0.0, []
    for _ in range(200):
        now += idle_s
        shares.append(pace.busy(now))
        pace.took(now, now + seconds)
        now += seconds
        shares.append(pace.busy(now))
    assert sum(shares[-100:]) / 100 == pytest.approx(seconds / (idle_s + seconds), abs=0.05)


def test_it_is_forgotten() -> None:
    pace = Pace()
    pace.took(0.0, 1.0)
    assert pace.busy(1.0) == pytest.approx(1.0, abs=1e-4)
    assert pace.busy(1.0 + 5 * LATELY_S) < 0.01

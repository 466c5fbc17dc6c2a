"""The engine's decisions hold in every order that was tried, and the simulation finds what is broken on purpose."""

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.sim.controls import CONTROLS
from tests.sim.shrink import shortest, tell
from tests.sim.world import FAULTS, Schedule, Step, models_in, run

SCHEDULES = 400
TO_CATCH = 1_500
"""A control must be caught within so many schedules."""

steps = st.builds(
    Step,
    wait_s=st.sampled_from((0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 7.0)),
    events=st.integers(0, 5),
    fault=st.sampled_from(("", *FAULTS)),
    target=st.integers(0, 1),
)


def test_seeded_schedules_hold() -> None:
    with models_in():
        for seed in range(SCHEDULES):
            assert not run(Schedule.drawn(seed)).wrong, shortest(Schedule.drawn(seed))


@budget(max_examples=50, deadline=None)
@given(st.builds(Schedule, st.integers(0, 1 << 20), st.lists(steps, max_size=8).map(tuple)))
def test_schedules_that_hypothesis_chooses_hold(schedule: Schedule) -> None:
    with models_in():
        assert not run(schedule).wrong, tell(schedule)


def test_a_schedule_repeats_to_the_last_line() -> None:
    with models_in():
        for seed in range(20):
            assert tell(Schedule.drawn(seed)) == tell(Schedule.drawn(seed))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_broken_engine_is_caught(name: str) -> None:
    with models_in(), CONTROLS[name]():
        caught = next((seed for seed in range(TO_CATCH) if run(Schedule.drawn(seed)).wrong), None)
    assert caught is not None, f"{TO_CATCH} schedules did not find it: {name}"
    with models_in():
        assert not run(Schedule.drawn(caught)).wrong, "what was caught is the mutation"

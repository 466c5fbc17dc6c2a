"""The shortest schedule that still fails, found by hypothesis, and its history for a reader."""

import dataclasses

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests.sim.world import Schedule, Step, run

TRIES = 400


def shortest(schedule: Schedule) -> str:
    """Steps are left out and made smaller for as long as it fails; under the latencies of the same seed."""
    variants = st.tuples(*(st.one_of(st.none(), st.just(step), _smaller(step)) for step in schedule.steps))
    found = schedule
    try:
        found = find(
            variants.map(lambda steps: Schedule(schedule.seed, tuple(s for s in steps if s is not None))),
            lambda s: bool(run(s).wrong),
            settings=settings(
                max_examples=TRIES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    except NoSuchExample:
        pass
    return tell(min(schedule, found, key=lambda s: (len(s.steps), sum(step.events for step in s.steps))))


def _smaller(step: Step) -> st.SearchStrategy[Step]:
    return st.integers(0, step.events).map(lambda events: dataclasses.replace(step, events=events))


def tell(schedule: Schedule) -> str:
    """The steps, then what happened, line by line."""
    steps = "\n".join(f"  {step}" for step in schedule.steps)
    return f"seed {schedule.seed}\n{steps}\n" + "\n".join(run(schedule).history)

"""The scenarios: which faults a run injects, and what the line and its workload must be like for them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from freshet.prove.faults import Fault, KillSink, KillWorker
from freshet.prove.workload import Shape

Faults = Callable[[int, random.Random], list[Fault]]
"""(how many kills, the seed's random numbers) -> the faults, in their order."""


@dataclass(frozen=True)
class Scenario:
    """A named scenario. `together`: the share of faults that come before the line has recovered from the last one."""

    name: str
    says: str
    faults: Faults
    shape: Shape = field(default_factory=Shape)
    together: float = 0.25
    partitions: int = 4
    online_sinks: int = 1


def _random_kills(kills: int, rnd: random.Random) -> list[Fault]:
    return [
        KillWorker() if (chance := rnd.random()) < 0.8 else KillSink("online0" if chance < 0.9 else "archive")
        for _ in range(kills)
    ]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("kills", "workers and sinks are killed at random, also while they start and restore", _random_kills),
    )
}

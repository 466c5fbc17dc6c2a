"""What a part of the stack is, and what is known of it while it runs. Which parts there are is said in `plan`."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from freshet.stack.probes import Probe

Command = Callable[[], list[str]]
"""Makes ready what the program needs and returns its command line. May block (it runs in a thread) and may raise."""


class Health(StrEnum):
    """How a part does. `DONE` is a part that runs once and has succeeded."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    RESTARTING = "restarting"
    DONE = "done"
    STOPPED = "stopped"


WELL = frozenset({Health.HEALTHY, Health.DONE})


@dataclass(frozen=True)
class Part:
    """One program of the stack.

    `needs` names the parts that must be well before it starts; `once` runs to its end. A part with a `port` is well
    only when it is this program that listens there.
    """

    name: str
    command: Command
    log: Path
    address: str = ""
    port: int | None = None
    probe: Probe | None = None
    needs: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    once: bool = False


@dataclass
class Condition:
    """What is known of a part now. `since` is the Unix time, in seconds, of the last change of health."""

    part: Part
    health: Health = Health.WAITING
    pid: int | None = None
    restarts: int = 0
    since: float = field(default_factory=time.time)
    message: str = ""

    def set(self, health: Health, message: str = "") -> bool:
        """Note a health and why. Returns whether anything is new."""
        if (health, message) == (self.health, self.message):
            return False
        if health != self.health:
            self.since = time.time()
        self.health, self.message = health, message
        return True

    def record(self) -> dict[str, Any]:
        """The condition as it stands in `stack.json` and in `freshet status --json`."""
        return {
            "name": self.part.name,
            "address": self.part.address,
            "pid": self.pid,
            "health": str(self.health),
            "message": self.message,
            "restarts": self.restarts,
            "since": self.since,
            "log": str(self.part.log),
        }


def waves(parts: Iterable[Part]) -> list[list[Part]]:
    """The parts in the order in which they may start: each wave needs only earlier ones. Reversed, they stop."""
    left, done, result = list(parts), set[str](), list[list[Part]]()
    names = {part.name for part in left}
    while left:
        wave = [part for part in left if done.issuperset(names.intersection(part.needs))]
        if not wave:
            raise ValueError(f"parts need each other in a circle: {', '.join(part.name for part in left)}")
        result.append(wave)
        done |= {part.name for part in wave}
        left = [part for part in left if part not in wave]
    return result

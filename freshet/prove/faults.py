"""The faults of workers and sinks: each a small object that does it to a `Rig` and says to whom. See also `outages`."""

import random
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from freshet.prove.progress import ARCHIVE, FOLD, STORE
from freshet.prove.rig import Rig, Unproved
from streams.flink import checkpoints

REACHED_S = 40.0
"""A worker commits many times a second, the archive writes a file every five; a start takes three, ten when busy."""
FLINK_S = 90.0
"""For a checkpoint: Flink starts within ten seconds on a quiet machine, in forty on a busy one."""
FENCED_S = 40.0
ASLEEP_S = 2.0
"""So long the other sink writes on."""
FENCED = "another worker owns it now"


class Fault(ABC):
    """`place` is where progress must resume after it; `kills` how many processes it kills."""

    place: str = FOLD
    kills: int = 0

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def inject(self, rig: Rig, rnd: random.Random) -> str:
        """Do it. Returns to whom, and with which numbers. Raises `Unproved` when what must follow does not."""


def place_of(process: str) -> str:
    """Where a process makes progress."""
    return FOLD if process.startswith("worker") else ARCHIVE if process == "archive" else STORE


def _kill(rig: Rig, name: str) -> str:
    """SIGKILL it, as soon as it runs: it may have ended a moment ago."""
    rig.until(lambda: rig.process(name).signal(signal.SIGKILL), f"a kill of {name}", REACHED_S)
    return name


class KillWorker(Fault):
    """SIGKILL of a worker, wherever it is: at work, in a restore, in a rebalance, at its start."""

    kills = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        return _kill(rig, rnd.choice(rig.workers()))


class KillAtCheckpoint(Fault):
    """SIGKILL of the Flink job the moment a checkpoint is complete; what it covers may be committed then or not."""

    kills = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        (name,), folder = rig.workers(), rig.settings.home / "flink"
        before, give_up = checkpoints.newest(folder), time.monotonic() + FLINK_S
        while (newest := checkpoints.newest(folder)) == before:  # no pause: the commit follows at once
            if time.monotonic() > give_up:
                raise Unproved(f"no checkpoint was completed in {FLINK_S:.0f} s")
        rig.process(name).signal(signal.SIGKILL)
        rig.strike()
        assert newest is not None
        return f"{name} at {newest.name}"


class LoseWorker(Fault):
    """SIGKILL of a worker that stays away until another one has taken its partitions over."""

    kills = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name = rnd.choice(rig.workers())
        with rig.supervisor.held_down(name):
            rig.strike()
            killed, marks = time.monotonic(), rig.progress.now(FOLD)
            rig.until(
                lambda: rig.progress.moved_after(FOLD, killed, marks) is not None,
                f"a takeover of the partitions of {name}",
                REACHED_S,
            )
        return f"{name}, away for {time.monotonic() - killed:.1f} s"


@dataclass
class KillSink(Fault):
    """SIGKILL of a sink, wherever it is."""

    which: str
    kills: int = 1

    def __post_init__(self) -> None:
        self.place = place_of(self.which)

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        return _kill(rig, self.which)


@dataclass
class KillAt(Fault):
    """SIGKILL at a named point of `freshet.prove.launch.POINTS`; `which` None: of any worker."""

    point: str
    which: str | None = None
    at_most: int = 20
    kills: int = 1

    def __post_init__(self) -> None:
        self.place = place_of(self.which) if self.which else FOLD

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name, nth = self.which or rnd.choice(rig.workers()), rnd.randint(1, self.at_most)
        process = rig.process(name)
        before = process.exits[-9]
        process.order(f"kill {self.point} {nth}")
        rig.until(lambda: process.exits[-9] > before, f"the {nth}. {self.point} of {name}", REACHED_S)
        rig.strike()
        return f"{name} at the {nth}. {self.point}"


class KillInRestore(Fault):
    """SIGKILL of a worker, and again in the middle of the restore that follows."""

    kills = 2

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name, nth = rnd.choice(rig.workers()), rnd.randint(1, 8)
        process = rig.process(name)
        before = process.exits[-9]
        process.first_orders.append(f"kill in_restore {nth}")
        process.signal(signal.SIGKILL)
        rig.until(lambda: process.exits[-9] > before + 1, f"piece {nth} of a restore of {name}", REACHED_S)
        return f"{name}, then at piece {nth} of its restore"


@dataclass
class KillBackfill(Fault):
    """SIGKILL in the middle of a backfill that runs beside the line. The checker runs the next one."""

    point: str = "in_backfill"
    at_most: int = 3
    kills: int = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        nth = rnd.randint(1, self.at_most)
        process = rig.run_once("backfill", "backfill", f"kill {self.point} {nth}")
        rig.until(lambda: process.exits[-9] == 1, f"the {nth}. {self.point}", REACHED_S)
        rig.supervisor.remove("backfill")
        return f"at the {nth}. {self.point}"


@dataclass
class Zombie(Fault):
    """SIGSTOP of a worker inside a transaction until others have its partitions, then SIGCONT. It must be fenced."""

    point: str = "after_sends"
    must_be_fenced: bool = True

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name, nth = rnd.choice(rig.workers()), rnd.randint(1, 20)
        process = rig.process(name)
        before, left = process.said(FENCED), process.exits[70]
        process.order(f"stop {self.point} {nth}")
        rig.until(lambda: process.is_stopped, f"the {nth}. {self.point} of {name}", REACHED_S)
        rig.strike()
        stopped, marks = time.monotonic(), rig.progress.now(FOLD)
        try:
            rig.until(
                lambda: rig.progress.moved_after(FOLD, stopped, marks) is not None,
                f"a takeover of the partitions of {name}",
                REACHED_S,
            )
        finally:
            process.signal(signal.SIGCONT)
        where = f"{name} slept {time.monotonic() - stopped:.1f} s at the {nth}. {self.point}"
        if not self.must_be_fenced:
            return where
        rig.until(lambda: process.exits[70] > left, f"the end of the zombie {name}", FENCED_S)
        rig.until(lambda: process.said(FENCED) > before, f"a fence of the zombie {name}", 1.0)
        return f"{where}, then was fenced"


@dataclass
class StaleSink(Fault):
    """SIGSTOP of one of two online sinks with rows in its hands, until the other one has written newer ones."""

    which: str = "online0"
    place: str = STORE

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        process, nth = rig.process(self.which), rnd.randint(1, 3)
        process.order(f"stop before_redis {nth}")
        rig.until(lambda: process.is_stopped, f"the {nth}. before_redis of {self.which}", REACHED_S)
        stopped, marks = time.monotonic(), rig.progress.now(STORE)
        try:
            rig.until(
                lambda: rig.progress.moved_after(STORE, stopped, marks) is not None,
                "a write of the other sink",
                REACHED_S,
            )
            time.sleep(ASLEEP_S)
        finally:
            process.signal(signal.SIGCONT)
        return f"{self.which} slept {time.monotonic() - stopped:.1f} s"


class Join(Fault):
    """One worker more."""

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        free = next(i for i in range(100) if f"worker{i}" not in rig.supervisor.processes)
        rig.join(free)
        return f"worker{free}"


class Leave(Fault):
    """A worker is told to stop. It must end politely."""

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name = rnd.choice(rig.workers()[:-1] or rig.workers())
        process = rig.supervisor.remove(name)
        return f"{name}, exits {dict(process.exits)}"

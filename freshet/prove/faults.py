"""The faults: what may go wrong, each a small object that does it to a `Rig` and says what it did."""

import random
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass

from freshet.prove.progress import ARCHIVE, FOLD, STORE
from freshet.prove.rig import Rig


class Fault(ABC):
    """`place` is where progress must resume after it; `kills` how many processes it kills at once."""

    place: str = FOLD
    kills: int = 0

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def inject(self, rig: Rig, rnd: random.Random) -> str:
        """Do it. Returns to whom, and with which numbers."""


@dataclass
class KillWorker(Fault):
    """SIGKILL of a worker, wherever it is: at work, in a restore, in a rebalance, at its start."""

    kills: int = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name = rnd.choice(rig.workers())
        rig.process(name).signal(signal.SIGKILL)
        return name


@dataclass
class KillSink(Fault):
    """SIGKILL of a sink, wherever it is."""

    which: str = "online0"
    kills: int = 1

    @property
    def place(self) -> str:  # type: ignore[override]
        return ARCHIVE if self.which == "archive" else STORE

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        rig.process(self.which).signal(signal.SIGKILL)
        return self.which

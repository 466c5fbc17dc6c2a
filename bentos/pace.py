"""How long computing an answer takes of late, in this process, and how busy it is: by both the guard lets questions in.

Answers are computed one after another (`bentos.answering`), so what waits takes as many times the mean as it is many.
"""

from math import exp

FIRST_S = 0.005
"""Until the first is measured: a small catalogue on a machine of today."""
NEWEST = 0.1
"""Weight of the newest answer in the mean: it follows a machine that gets busy within tens of answers."""
LATELY_S = 0.1
"""After so long without a question a process has forgotten two thirds of how busy it was."""


class Pace:
    """A moving mean of the time that an answer takes, `mean_s`. Times are of `perf_counter`, in seconds."""

    def __init__(self) -> None:
        self.mean_s = FIRST_S
        self._busy = self._ended = 0.0

    def took(self, begun: float, ended: float) -> None:
        """Count one answer."""
        self.mean_s += NEWEST * (ended - begun - self.mean_s)
        idle = 1.0 - self.busy(begun)
        self._busy, self._ended = 1.0 - idle * exp((begun - ended) / LATELY_S), ended

    def busy(self, now: float) -> float:
        """The share of its time that it has computed answers lately."""
        return self._busy * exp((self._ended - now) / LATELY_S)


pace = Pace()
"""That of this process: the guard in front of an application and the application within it meet here."""

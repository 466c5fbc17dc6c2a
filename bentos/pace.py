"""How long computing an answer takes of late, in this process: by it the guard tells what a question has to wait.

Answers are computed one after another (`bentos.answering`), so what waits takes as many times the mean as it is many.
"""

FIRST_S = 0.005
"""Until the first is measured: a small catalogue on a machine of today."""
NEWEST = 0.1
"""Weight of the newest answer in the mean: it follows a machine that gets busy within tens of answers."""


class Pace:
    """A moving mean of the time that an answer takes, `mean_s`."""

    def __init__(self) -> None:
        self.mean_s = FIRST_S

    def took(self, seconds: float) -> None:
        """Count one answer."""
        self.mean_s += NEWEST * (seconds - self.mean_s)


pace = Pace()
"""That of this process: the guard in front of an application and the application within it meet here."""

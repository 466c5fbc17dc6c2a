"""How a running stack looks to a person: a table that stays in place on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from freshet.stack.parts import Condition, Health

COLOURS = {
    Health.HEALTHY: "green",
    Health.DONE: "green",
    Health.STARTING: "yellow",
    Health.RESTARTING: "red",
    Health.UNHEALTHY: "red",
}


class Board(Protocol):
    """Something that shows conditions."""

    def changed(self, condition: Condition) -> None:
        """One part has a new condition."""

    def tick(self) -> None:
        """A second has passed."""

    def close(self) -> None:
        """Show no more."""


def table(records: Iterable[Mapping[str, Any]]) -> Table:
    """One line per part, from the records of `stack.json`."""
    made = Table(box=None, pad_edge=False)
    for heading in ("part", "health", "for", "address", "pid", "restarts", "note"):
        made.add_column(
            heading,
            justify="right" if heading in ("for", "pid", "restarts") else "left",
            no_wrap=heading != "note",
            overflow="fold",
        )
    for record in records:
        colour = COLOURS.get(Health(record["health"]), "dim")
        made.add_row(
            f"[bold]{record['name']}[/]",
            f"[{colour}]{record['health']}[/]",
            _ago(time.time() - record["since"]),
            record["address"],
            str(record["pid"] or ""),
            str(record["restarts"] or ""),
            record["message"],
        )
    return made


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


class LiveBoard:
    """The table, drawn over itself."""

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        """Draws at once."""
        self._conditions = conditions
        # No refresh thread: everything here happens in the supervisor's loop.
        self._live = Live(auto_refresh=False, console=Console(stderr=True))
        self._live.start()
        self.tick()

    def changed(self, condition: Condition) -> None:
        """Redraw."""
        self.tick()

    def tick(self) -> None:
        """Redraw: the ages have changed."""
        self._live.update(table(condition.record() for condition in self._conditions.values()), refresh=True)

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._live.stop()


class LineBoard:
    """A line for each change."""

    def changed(self, condition: Condition) -> None:
        """Write the line."""
        about = condition.message or (condition.part.address if condition.health is Health.HEALTHY else "")
        print(
            time.strftime("%H:%M:%S"),
            f"{condition.part.name:12}",
            f"{condition.health:10}",
            about,
            file=sys.stderr,
            flush=True,
        )

    def tick(self) -> None:
        """No news is no line."""

    def close(self) -> None:
        """Nothing to tidy."""


def board(conditions: Mapping[str, Condition]) -> Board:
    """The one that suits where standard error goes."""
    return LiveBoard(conditions) if sys.stderr.isatty() else LineBoard()

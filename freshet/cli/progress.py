"""Progress of long work: the one callback that every room takes, drawn as bars on a terminal and as lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int | None], None]
"""(label, done, total or None when unknown). A new label begins a new bar."""
LINE_EVERY_S = 5.0
"""Where bars cannot be drawn, a line for each label at most this often."""


@contextmanager
def bars() -> Iterator[Report]:
    """A callback to hand to long work. What it draws goes to standard error, so results can be piped."""
    if sys.stderr.isatty():
        yield from _bars()
    else:
        yield _lines()


def _bars() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=10) as progress:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done, total=total)

        yield report


def _lines() -> Report:
    said: dict[str, float] = {}

    def report(label: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if label not in said or done == total or now - said[label] >= LINE_EVERY_S:
            said[label] = now
            print(f"{label}: {done:,}" + (f" of {total:,}" if total else ""), file=sys.stderr, flush=True)

    return report

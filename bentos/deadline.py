"""How long the question at hand may take: set by the guard as it comes in, asked by the stages that can be left out."""

from contextvars import ContextVar
from time import perf_counter

MOST_MS = 60_000
_given: ContextVar[tuple[float, float] | None] = ContextVar("given", default=None)
"""From when, and how many seconds."""


class BadDeadline(ValueError):
    """A header that is no deadline."""


def begin(given: bytes | None, default_ms: int) -> float:
    """Seconds that this task's question may take from now: its header `X-Deadline-Ms`, or the default.

    Raises `BadDeadline`.
    """
    if given is not None and not (given.isdigit() and len(given) < 10 and 1 <= int(given) <= MOST_MS):
        raise BadDeadline(f"X-Deadline-Ms must be a whole number from 1 to {MOST_MS}")
    seconds = (default_ms if given is None else int(given)) / 1_000
    _given.set((perf_counter(), seconds))
    return seconds


def again() -> None:
    """The same time anew, from now: each user of a batch has all of it."""
    if (given := _given.get()) is not None:
        _given.set((perf_counter(), given[1]))


def passed() -> bool:
    """Whether it is over; never where none was set."""
    given = _given.get()
    return given is not None and perf_counter() > sum(given)

"""Interactions: what a source file says that people did, as columns, and the one order in which it is replayed.

Reading a format into this shape is left to its source (`movielens`, `amazon`, `table`); sending to `player`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streams.catalogue import Item
from streams.events import ID_MAX_BYTES, Micros

Ints = NDArray[np.int64]


class BadSource(ValueError):
    """A file that is missing or is not what it was said to be. Its text says what was looked for."""


@dataclass(frozen=True)
class Ids:
    """A column of ids: `names[codes[row]]` is the id of a row. Names are in the order of the ids."""

    codes: Ints
    names: list[str]

    @classmethod
    def of(cls, column: pl.Series) -> "Ids":
        """From a column of text or integers: integers compare as numbers."""
        if column.null_count():
            raise BadSource(f"column {column.name!r} has {column.null_count()} rows without a value")
        if not column.dtype.is_integer():
            column = column.cast(pl.String)
        names = column.unique().sort()
        return cls(names.search_sorted(column).to_numpy().astype(np.int64), names.cast(pl.String).to_list())

    @classmethod
    def constant(cls, name: str, rows: int) -> "Ids":
        """The same in every row."""
        return cls(np.zeros(rows, np.int64), [name])


@dataclass(frozen=True)
class Interactions:
    """One row an event, in any order. `times` are epoch microseconds; NaN in `values` means none."""

    users: Ids
    items: Ids
    types: Ids
    times: Ints
    values: NDArray[np.float64] | None = None
    sessions: list[str | None] | None = None
    categories: list[tuple[str, ...]] | None = None
    event_ids: list[str] | None = None
    properties: Sequence[Mapping[str, int] | None] | None = None

    def __len__(self) -> int:
        return len(self.times)


class Source(Protocol):
    """A set of files that can be replayed."""

    name: str
    prefix: str
    """Event ids begin with it."""
    repeats: bool
    """Whether a user may do the same with an item again; then event ids hold the time as well."""

    def fingerprint(self) -> str:
        """Stable while the files and how they are read stay the same."""

    def items(self) -> Iterable[Item]:
        """The catalogue, as far as the files know it."""

    def interactions(self) -> Interactions:
        """All events. Raises `BadSource`."""


@dataclass(frozen=True)
class Timeline:
    """The order of a replay: row numbers of the interactions, and a time for each that no other has.

    `occurrence` counts rows that agree in everything else: 0 for the first of them.
    """

    rows: Ints
    times: Ints
    occurrence: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, which: slice | Ints) -> "Timeline":
        """Some places, in the given order."""
        return Timeline(self.rows[which], self.times[which], self.occurrence[which])

    def between(self, start: Micros | None, end: Micros | None) -> "Timeline":
        """The part with start <= time < end."""
        first = 0 if start is None else int(np.searchsorted(self.times, start))
        last = len(self) if end is None else int(np.searchsorted(self.times, end))
        return self.pick(slice(first, last))

    def shifted(self, by: Micros) -> "Timeline":
        """All times later by so many microseconds."""
        return replace(self, times=self.times + by)

    def with_duplicates(self, share: float, seed: int, within: int = 5_000) -> "Timeline":
        """With a share of the events sent a second time, unchanged, at most `within` events after the first."""
        if not 0 <= share <= 1:
            raise ValueError(f"duplicates must be a share between 0 and 1, not {share}")
        rng = np.random.default_rng(seed)
        again = np.flatnonzero(rng.random(len(self)) < share)
        places = np.concatenate([np.arange(len(self)), again + rng.integers(0, within, len(again))])
        return self.pick(np.concatenate([np.arange(len(self)), again])[np.argsort(places, kind="stable")])


def timeline(interactions: Interactions) -> Timeline:
    """Order by (time, user, item, type) and make times unique.

    An event moves to 1 us after the one before it where it would not be later: history then has one total order, and
    "everything before" means the same to everyone who reads it.
    """
    i = interactions
    rows = np.lexsort((i.types.codes, i.items.codes, i.users.codes, i.times))
    step = np.arange(len(rows))
    if not len(rows):
        return Timeline(rows, i.times, step)
    differs = np.ones(len(rows), bool)
    differs[1:] = np.any(
        [np.diff(c[rows]) != 0 for c in (i.times, i.users.codes, i.items.codes, i.types.codes)], axis=0
    )
    occurrence = step - np.maximum.accumulate(np.where(differs, step, 0))
    return Timeline(rows, np.maximum.accumulate(i.times[rows] - step) + step, occurrence)


def event_ids(interactions: Interactions, line: Timeline, prefix: str, repeats: bool) -> list[str]:
    """A deterministic id for each event of the timeline, e.g. `ml-196-242`, so that sending one again is no new event.

    Where `repeats`, ids hold type and original time too, and rows that agree even in that are numbered.
    """
    i, rows = interactions, line.rows
    if i.event_ids is not None:
        return [i.event_ids[row] for row in rows.tolist()]
    users = [i.users.names[c] for c in i.users.codes[rows].tolist()]
    items = [i.items.names[c] for c in i.items.codes[rows].tolist()]
    if not repeats:
        return [_short(f"{prefix}-{user}-{item}") for user, item in zip(users, items, strict=True)]
    types = [i.types.names[c] for c in i.types.codes[rows].tolist()]
    numbers = [f"-{n + 1}" if n else "" for n in line.occurrence.tolist()]
    columns = zip(users, items, types, i.times[rows].tolist(), numbers, strict=True)
    return [_short(f"{prefix}-{user}-{item}-{kind}-{at}{number}") for user, item, kind, at, number in columns]


def _short(name: str) -> str:
    if len(name) <= ID_MAX_BYTES // 4 or len(name.encode()) <= ID_MAX_BYTES:
        return name
    return blake2b(name.encode(), digest_size=16).hexdigest()

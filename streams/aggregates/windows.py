"""Integer sums over windows: `Count`, `Sum` and `Mean`, and the tiles that `Distinct` shares."""

from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.aggregates.base import (
    EARLY_READ,
    EVER,
    MINUTE,
    UNIT,
    Aggregate,
    BadDeclaration,
    Column,
    Selector,
    Slot,
    span_of,
    tile_of,
    words,
)
from streams.aggregates.packing import MOST_TILES, Series, pack_series, unpack_series
from streams.events import Event, Micros


@dataclass(frozen=True)
class Windowed(Aggregate):
    """Shared by the aggregates over windows: one series of tiles for each tile size that the windows need."""

    of: Selector | None = None
    windows: tuple[str, ...] | list[str] = ()
    reads: tuple[tuple[int, Micros, Micros], ...] = field(init=False, repr=False, compare=False)
    """(index of its series, window, tile size), one a window."""
    sizes: tuple[tuple[Micros, int], ...] = field(init=False, repr=False, compare=False)
    """(tile size, how many tiles behind the newest are kept), one a series."""

    def __post_init__(self) -> None:
        if not self.windows:
            raise BadDeclaration(f'{self.name}: give windows, e.g. windows=["1h", "7d"] or ["ever"]')
        object.__setattr__(self, "windows", tuple(self.windows))
        spans = tuple(span_of(w) for w in self.windows)
        keep: dict[Micros, int] = {}
        for text, span in zip(self.windows, spans, strict=True):
            size = tile_of(span)
            if span % size:
                raise BadDeclaration(
                    f"{self.name}: window {text} is not a multiple of its tile of {size // MINUTE} minutes"
                )
            tiles = 0 if size == EVER else span // size + -(-EARLY_READ // size)
            if tiles >= MOST_TILES:
                raise BadDeclaration(f'{self.name}: window {text} has {tiles} tiles of a day; say "ever"')
            keep[size] = max(keep.get(size, 0), tiles)
        sizes = sorted(keep)
        object.__setattr__(self, "sizes", tuple((size, keep[size]) for size in sizes))
        object.__setattr__(self, "reads", tuple((sizes.index(tile_of(s)), s, tile_of(s)) for s in spans))

    @property
    def bound(self) -> str:
        return f"{sum(n + 1 for _, n in self.sizes)} tiles"


def first_tile(window: Micros, tile: Micros, at: Micros) -> int:
    """Index of the first tile that a window read at `at` holds."""
    return 0 if window == EVER else (at - window) // tile


def leaves(tiles: Sequence[int], window: Micros, tile: Micros, at: Micros) -> Micros:
    """When the oldest of these (sorted) tiles that a window read at `at` holds will have left it."""
    i = bisect_left(tiles, first_tile(window, tile, at))
    return EVER if window == EVER or i == len(tiles) else (tiles[i] + 1) * tile + window


def unpack_all(data: bytes, count: int) -> tuple[list[Series], int]:
    """So many series from the beginning, and where they end. Raises `ValueError`."""
    found, end = [], 0
    for _ in range(count):
        series, end = unpack_series(data, end)
        found.append(series)
    return found, end


def add(series: Series, tile: int, amount: int, keep: int) -> None:
    """Add to a tile; tiles more than `keep` behind the newest are dropped, and so is what comes for them."""
    tiles, sums = series
    if not tiles or tile > tiles[-1]:
        tiles.append(tile)
        sums.append(amount)
        if tile - tiles[0] > keep:
            gone = bisect_left(tiles, tile - keep)
            del tiles[:gone], sums[:gone]
    elif tile == tiles[-1]:
        sums[-1] += amount
    elif tiles[-1] - tile <= keep:
        i = bisect_left(tiles, tile)
        if tiles[i] == tile:
            sums[i] += amount
        else:
            tiles.insert(i, tile)
            sums.insert(i, amount)


@dataclass(frozen=True)
class _Tiled(Windowed):
    """Integer sums in tiles: the slot is one `Series` a tile size, its bytes are theirs one after another."""

    def new(self) -> Slot:
        return [(array("i"), array("q")) for _ in self.sizes]

    @abstractmethod
    def _amount(self, event: Event) -> int | None:
        """What an event adds; None for nothing."""

    def update(self, slot: Slot, event: Event) -> None:
        amount = self._amount(event)
        if amount is None:
            return
        at = event.event_time
        for series, (size, keep) in zip(slot, self.sizes, strict=True):
            add(series, at // size, amount, keep)

    def merge(self, slot: Slot, other: Slot) -> None:
        for series, (tiles, sums), (_, keep) in zip(slot, other, self.sizes, strict=True):
            for tile, amount in zip(tiles, sums, strict=True):
                add(series, tile, amount, keep)

    def _sums(self, slot: Slot, at: Micros) -> tuple[list[int], Micros]:
        """The sum of each window, and the first instant after `at` at which one of them loses a tile."""
        found, until = [], EVER
        for i, window, tile in self.reads:
            tiles, sums = slot[i]
            if window == EVER:
                found.append(sums[0] if sums else 0)
                continue
            first = bisect_left(tiles, (at - window) // tile)
            found.append(sum(sums[first:]))
            if first < len(tiles):
                until = min(until, (tiles[first] + 1) * tile + window)
        return found, until

    @abstractmethod
    def _of(self, sums: list[int]) -> tuple[Any, ...]:
        """The columns' values."""

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return self._of(self._sums(slot, at)[0])

    def stable_until(self, slot: Slot, at: Micros) -> Micros:
        return self._sums(slot, at)[1]

    def reading(self, slot: Slot, at: Micros) -> tuple[tuple[Any, ...], Micros]:
        sums, until = self._sums(slot, at)
        return self._of(sums), until

    def pack(self, slot: Slot) -> bytes:
        return b"".join(map(pack_series, slot)) if slot[0][0] else b""

    def unpack(self, data: bytes) -> Slot:
        slot, end = unpack_all(data, len(self.sizes))
        if end != len(data):
            raise ValueError(f"{len(data) - end} bytes too many")
        return slot


@dataclass(frozen=True)
class Count(_Tiled):
    """How many events. Columns `<name>_<window>`: int64."""

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        return tuple(Column(f"{self.name}_{w}", "int64", 0, f"number of {what}, {words(w)}") for w in self.windows)

    def _amount(self, event: Event) -> int:
        return 1

    def _of(self, sums: list[int]) -> tuple[Any, ...]:
        return tuple(sums)


@dataclass(frozen=True)
class Sum(_Tiled):
    """Sum of the events' `value`, to a millionth; none adds nothing. Columns `<name>_<window>`: float64."""

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        return tuple(
            Column(f"{self.name}_{w}", "float64", 0.0, f"sum of the values of {what}, {words(w)}") for w in self.windows
        )

    def _amount(self, event: Event) -> int | None:
        return None if event.value is None else round(event.value * UNIT)

    def _of(self, sums: list[int]) -> tuple[Any, ...]:
        return tuple(total / UNIT for total in sums)


@dataclass(frozen=True)
class Mean(Windowed):
    """Mean of the events' `value`. Columns `<name>_<window>`: float64; `default` where no event has a value."""

    default: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_count", Count("count", self.of, self.windows))
        object.__setattr__(self, "_total", Sum("sum", self.of, self.windows))

    _count: Count = field(init=False, repr=False, compare=False)
    _total: Sum = field(init=False, repr=False, compare=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        return tuple(
            Column(f"{self.name}_{w}", "float64", self.default, f"mean value of {what}, {words(w)}")
            for w in self.windows
        )

    def new(self) -> Slot:
        return [self._count.new(), self._total.new()]

    def update(self, slot: Slot, event: Event) -> None:
        if event.value is not None:
            self._count.update(slot[0], event)
            self._total.update(slot[1], event)

    def merge(self, slot: Slot, other: Slot) -> None:
        self._count.merge(slot[0], other[0])
        self._total.merge(slot[1], other[1])

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return self.reading(slot, at)[0]

    def stable_until(self, slot: Slot, at: Micros) -> Micros:
        return self._count.stable_until(slot[0], at)

    def reading(self, slot: Slot, at: Micros) -> tuple[tuple[Any, ...], Micros]:
        counts, until = self._count.reading(slot[0], at)
        pairs = zip(self._total.value(slot[1], at), counts, strict=True)
        return tuple(total / count if count else self.default for total, count in pairs), until

    def pack(self, slot: Slot) -> bytes:
        return self._count.pack(slot[0]) + self._total.pack(slot[1])

    def unpack(self, data: bytes) -> Slot:
        counts, end = unpack_all(data, len(self.sizes))
        return [counts, self._total.unpack(data[end:])]

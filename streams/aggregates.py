"""The aggregates: what a feature can remember about a stream of events, and how it is read at an instant.

Each aggregate is one frozen declaration with a small mutable *slot* as its state. A slot is changed by `update`,
joined by `merge`, and read by the pure function `value(slot, at)`; time alone never changes a slot. How slots make
up the state of a user or an item, and its bytes, is left to `streams.profiles`.

Windows are sparse tiles aligned to the epoch: 5 minutes for windows up to 12 hours, 1 hour up to 12 days, 1 day
beyond ("sawtooth" windows, after Chronon's `Resolution`). A window W read at t holds the events known with
`floor(t - W, tile) <= event_time`. Sums are integers of 1e-6, so merging is exact in any order.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, ClassVar, Literal

import msgspec
import xxhash

from streams.events import Event, Micros

SECOND: Micros = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
TILE: Micros = 5 * MINUTE
EVER: Micros = 1 << 62
"""The window "ever": one tile that holds all of time."""
EARLY_READ: Micros = 10 * MINUTE
"""A state may be read this long before its newest event (clocks differ); tiles are kept that much longer."""
UNIT = 1_000_000
"""Sums count in millionths."""

Dtype = Literal["int64", "float64", "string[]", "float64[]"]
Slot = Any
"""The mutable state of one aggregate; its shape is the aggregate's own business."""


class BadDeclaration(ValueError):
    """A feature declaration that cannot work. Its text gives the reason and the way out."""


@dataclass(frozen=True)
class Column:
    """One output of an aggregate: a column of the training set, the model's input and the drift report."""

    name: str
    dtype: Dtype
    default: Any
    doc: str


@dataclass(frozen=True)
class Selector:
    """Which events count: pairs of an event type and, where given, the least value it needs."""

    terms: tuple[tuple[str, float | None], ...]

    def __or__(self, other: "Selector") -> "Selector":
        return Selector(tuple(sorted({*self.terms, *other.terms}, key=repr)))

    def __str__(self) -> str:
        return " or ".join(t if least is None else f"{t} >= {least:g}" for t, least in self.terms)


def on(*types: str, at_least: float | None = None) -> Selector:
    """Select events by type, e.g. `on("click", "cart") | on("rate", at_least=4)`."""
    if not types:
        raise BadDeclaration("on() needs at least one event type")
    return Selector(tuple(sorted(((t, at_least) for t in types), key=repr)))


def span_of(text: str) -> Micros:
    """Microseconds of a duration such as "90s", "5m", "1h", "7d" or "ever"."""
    if text == "ever":
        return EVER
    unit = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}.get(text[-1:])
    if unit is None or not text[:-1].isdigit() or int(text[:-1]) == 0:
        raise BadDeclaration(f'duration {text!r} must look like "5m", "1h", "7d" or "ever"')
    return int(text[:-1]) * unit


def tile_of(window: Micros) -> Micros:
    """The tile size that serves a window."""
    if window == EVER:
        return EVER
    return TILE if window <= 12 * HOUR else HOUR if window <= 12 * DAY else DAY


def hash64(text: str) -> int:
    """A stable 64-bit hash (xxh3)."""
    return xxhash.xxh3_64_intdigest(text.encode())


_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


def _texts(name: str) -> Callable[[Event], tuple[str, ...]]:
    """A reader of a text field of an event, always as a tuple."""
    if name == "categories":
        return lambda event: event.categories
    if name in ("item_id", "user_id", "type"):
        return lambda event: (getattr(event, name),)
    if name in ("session_id", "request_id"):
        return lambda event: () if getattr(event, name) is None else (getattr(event, name),)
    raise BadDeclaration(f"field {name!r} is no text field of an event; use item_id, user_id, type, categories, session_id or request_id")


@dataclass(frozen=True)
class Aggregate(ABC):
    """One declared feature. Subclasses say in class attributes what holds of them; the docs print these as a table."""

    name: str

    mergeable: ClassVar[Literal["exactly", "up to rounding"]] = "exactly"
    order_free: ClassVar[bool] = True
    """Whether the slot is the same whatever the order in which the events came. Item profiles need this."""
    late_safe: ClassVar[str] = "yes, while its tile is kept"

    def selector(self) -> Selector | None:
        """Which events reach `update`; None for all."""
        selected: Selector | None = getattr(self, "of", None)
        return selected

    @property
    def signature(self) -> int:
        """32 bits made from the class and every parameter: a state whose signature changed is not misread."""
        parameters = [(f.name, repr(getattr(self, f.name))) for f in fields(self) if f.init]
        return int.from_bytes(blake2b(repr((type(self).__name__, parameters)).encode(), digest_size=4).digest(), "big")

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """What `value` returns, in its order."""

    @property
    @abstractmethod
    def bound(self) -> str:
        """What bounds the size of the slot, for the docs."""

    @abstractmethod
    def new(self) -> Slot:
        """The slot of a key that was never seen."""

    @abstractmethod
    def update(self, slot: Slot, event: Event) -> None:
        """Count one selected event in."""

    @abstractmethod
    def merge(self, slot: Slot, other: Slot) -> None:
        """Count all events of `other` in."""

    @abstractmethod
    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        """The values at an instant, one a column. Pure."""

    @abstractmethod
    def pack(self, slot: Slot) -> bytes:
        """The slot's bytes; empty for a slot that is as new."""

    @abstractmethod
    def unpack(self, data: bytes) -> Slot:
        """The inverse of `pack` for bytes that are not empty."""


@dataclass(frozen=True)
class _Windowed(Aggregate):
    """Shared by the aggregates over windows: one series of tiles for each tile size that the windows need."""

    of: Selector | None = None
    windows: tuple[str, ...] | list[str] = ()
    _spans: tuple[Micros, ...] = field(init=False, repr=False, compare=False)
    _sizes: tuple[tuple[Micros, int], ...] = field(init=False, repr=False, compare=False)
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
                raise BadDeclaration(f"{self.name}: window {text} is not a multiple of its tile of {size // MINUTE} minutes")
            tiles = 0 if size == EVER else span // size + -(-EARLY_READ // size)
            keep[size] = max(keep.get(size, 0), tiles)
        object.__setattr__(self, "_spans", spans)
        object.__setattr__(self, "_sizes", tuple(sorted(keep.items())))

    @property
    def bound(self) -> str:
        return f"{sum(n + 1 for _, n in self._sizes)} tiles"

    def _series(self, window: Micros) -> int:
        return [size for size, _ in self._sizes].index(tile_of(window))

    def _first(self, window: Micros, at: Micros) -> int:
        """Index of the first tile that a window read at `at` holds."""
        return 0 if window == EVER else (at - window) // tile_of(window)


Series = tuple["array[int]", "array[int]"]
"""Sorted tile indices and what each tile holds."""


def _add(series: Series, tile: int, amount: int, keep: int) -> None:
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
class _Tiled(_Windowed):
    """Integer sums in tiles: the slot is one `Series` a tile size."""

    def new(self) -> Slot:
        return [(array("q"), array("q")) for _ in self._sizes]

    @abstractmethod
    def _amount(self, event: Event) -> int | None:
        """What an event adds; None for nothing."""

    def update(self, slot: Slot, event: Event) -> None:
        amount = self._amount(event)
        if amount is None:
            return
        at = event.event_time
        for series, (size, keep) in zip(slot, self._sizes, strict=True):
            _add(series, at // size, amount, keep)

    def merge(self, slot: Slot, other: Slot) -> None:
        for series, (tiles, sums), (_, keep) in zip(slot, other, self._sizes, strict=True):
            for tile, amount in zip(tiles, sums, strict=True):
                _add(series, tile, amount, keep)

    def _sum(self, slot: Slot, window: Micros, at: Micros) -> int:
        tiles, sums = slot[self._series(window)]
        return sum(sums[bisect_left(tiles, self._first(window, at)) :])

    def pack(self, slot: Slot) -> bytes:
        if not slot[0][0]:
            return b""
        return _pack([tiles.tobytes() + sums.tobytes() for tiles, sums in slot])

    def unpack(self, data: bytes) -> Slot:
        slot = []
        for chunk in _unpack(data):
            half = len(chunk) // 2
            slot.append((array("q", chunk[:half]), array("q", chunk[half:])))
        return slot


@dataclass(frozen=True)
class Count(_Tiled):
    """How many events. Columns `<name>_<window>`: int64."""

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        return tuple(Column(f"{self.name}_{w}", "int64", 0, f"number of {what}, {_words(w)}") for w in self.windows)

    def _amount(self, event: Event) -> int:
        return 1

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return tuple(self._sum(slot, w, at) for w in self._spans)


@dataclass(frozen=True)
class Sum(_Tiled):
    """Sum of the events' `value`, to a millionth. Columns `<name>_<window>`: float64. Events without a value add nothing."""

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        return tuple(Column(f"{self.name}_{w}", "float64", 0.0, f"sum of the values of {what}, {_words(w)}") for w in self.windows)

    def _amount(self, event: Event) -> int | None:
        return None if event.value is None else round(event.value * UNIT)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return tuple(self._sum(slot, w, at) / UNIT for w in self._spans)


@dataclass(frozen=True)
class Mean(_Windowed):
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
        return tuple(Column(f"{self.name}_{w}", "float64", self.default, f"mean value of {what}, {_words(w)}") for w in self.windows)

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
        pairs = zip(self._total.value(slot[1], at), self._count.value(slot[0], at), strict=True)
        return tuple(total / count if count else self.default for total, count in pairs)

    def pack(self, slot: Slot) -> bytes:
        counts = self._count.pack(slot[0])
        return _pack([counts, self._total.pack(slot[1])]) if counts else b""

    def unpack(self, data: bytes) -> Slot:
        counts, totals = _unpack(data)
        return [self._count.unpack(counts), self._total.unpack(totals)]


@dataclass(frozen=True)
class Distinct(_Windowed):
    """How many different values of a text field. Columns `<name>_<window>`: int64.

    Each tile keeps its `k` smallest 64-bit hashes: exact below `k`, beyond it the k-minimum-values estimate (Bar-Yossef
    et al., RANDOM 2002), whose relative error is about 1 / sqrt(k - 2). The union of tiles is again such a sketch, so
    merging is exact.
    """

    by: str = "item_id"
    k: int = 64
    _values: Callable[[Event], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 8:
            raise BadDeclaration(f"{self.name}: k must be at least 8")
        object.__setattr__(self, "_values", _texts(self.by))

    @property
    def bound(self) -> str:
        return f"{super().bound} of at most {self.k} hashes"

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        doc = f"number of different {self.by} of {what}"
        return tuple(Column(f"{self.name}_{w}", "int64", 0, f"{doc}, {_words(w)}") for w in self.windows)

    def new(self) -> Slot:
        return [{} for _ in self._sizes]

    def _keep(self, series: dict[int, list[int]], tile: int, hashes: list[int], keep: int) -> None:
        newest = max(series, default=tile)
        if newest - tile > keep:
            return
        kept = series.get(tile)
        if kept is None:
            kept = series[tile] = []
            if tile > newest:
                for old in [t for t in series if tile - t > keep]:
                    del series[old]
        for h in hashes:
            i = bisect_left(kept, h)
            if i == len(kept) or kept[i] != h:
                kept.insert(i, h)
        del kept[self.k :]

    def update(self, slot: Slot, event: Event) -> None:
        hashes = [hash64(text) for text in self._values(event)]
        if hashes:
            for series, (size, keep) in zip(slot, self._sizes, strict=True):
                self._keep(series, event.event_time // size, hashes, keep)

    def merge(self, slot: Slot, other: Slot) -> None:
        for series, tiles, (_, keep) in zip(slot, other, self._sizes, strict=True):
            for tile in sorted(tiles):
                self._keep(series, tile, tiles[tile], keep)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return tuple(self._estimate(slot[self._series(w)], self._first(w, at)) for w in self._spans)

    def _estimate(self, series: dict[int, list[int]], first: int) -> int:
        union = sorted({h for tile, hashes in series.items() if tile >= first for h in hashes})
        if len(union) < self.k:
            return len(union)
        return round((self.k - 1) * 2.0**64 / (union[self.k - 1] + 1))

    def pack(self, slot: Slot) -> bytes:
        if not slot[0]:
            return b""
        return _pack([[[t, array("Q", series[t]).tobytes()] for t in sorted(series)] for series in slot])

    def unpack(self, data: bytes) -> Slot:
        return [{t: array("Q", hashes).tolist() for t, hashes in series} for series in _unpack(data)]


@dataclass(frozen=True)
class Recent(Aggregate):
    """The newest `n` values of a text field with their ages. Columns `<name>`: string[], newest first, and `<name>_age_s`: float64[].

    Ordered by event time, equal times by the value, so the order of arrival leaves no trace.
    """

    by: str = "item_id"
    of: Selector | None = None
    n: int = 50

    late_safe: ClassVar[str] = "yes, if it is among the newest n"

    def __post_init__(self) -> None:
        if self.by == "categories":
            raise BadDeclaration(f"{self.name}: Recent keeps one value an event; use Decayed or Distinct for categories")
        if self.n < 1:
            raise BadDeclaration(f"{self.name}: n must be at least 1")
        _texts(self.by)

    @property
    def bound(self) -> str:
        return f"{self.n} values"

    @property
    def columns(self) -> tuple[Column, ...]:
        doc = f"newest {self.n} {self.by} of {self.of or 'events'}, newest first"
        return (
            Column(self.name, "string[]", [], doc),
            Column(f"{self.name}_age_s", "float64[]", [], f"seconds since each of `{self.name}`"),
        )

    def new(self) -> Slot:
        return []

    def update(self, slot: Slot, event: Event) -> None:
        text = getattr(event, self.by)
        if text is None:
            return
        entry = (event.event_time, text)
        if not slot or entry > slot[-1]:
            slot.append(entry)
        else:
            insort(slot, entry)
        if len(slot) > self.n:
            del slot[0]

    def merge(self, slot: Slot, other: Slot) -> None:
        slot.extend(other)
        slot.sort()
        del slot[: -self.n]

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return [text for _, text in reversed(slot)], [(at - t) / SECOND for t, _ in reversed(slot)]

    def pack(self, slot: Slot) -> bytes:
        return _pack([array("q", [t for t, _ in slot]).tobytes(), [text for _, text in slot]]) if slot else b""

    def unpack(self, data: bytes) -> Slot:
        times, texts = _unpack(data)
        return list(zip(array("q", times), texts, strict=True))


@dataclass(frozen=True)
class Decayed(Aggregate):
    """Weights by key that halve every `half_life`. Columns `<name>`: string[] (keys, sorted), `<name>_weight`: float64[].

    Forward decay (Cormode et al., ICDE 2009) with its landmark at a whole number of half-lives: moving the landmark
    multiplies by a power of two, which is exact, so nothing depends on when a state was last touched. At most `keys`
    keys are kept, the heaviest; what decayed below 2^-30 of an event is dropped.
    """

    by: str = "categories"
    of: Selector | None = None
    half_life: str = "7d"
    keys: int = 64

    mergeable: ClassVar[Literal["exactly", "up to rounding"]] = "up to rounding"
    order_free: ClassVar[bool] = False
    late_safe: ClassVar[str] = "yes"
    _h: Micros = field(init=False, repr=False, compare=False)
    _values: Callable[[Event], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        h = span_of(self.half_life)
        if h == EVER:
            raise BadDeclaration(f'{self.name}: a half-life of "ever" does not decay; use Count')
        object.__setattr__(self, "_h", h)
        object.__setattr__(self, "_values", _texts(self.by))

    @property
    def bound(self) -> str:
        return f"{self.keys} keys"

    @property
    def columns(self) -> tuple[Column, ...]:
        doc = f"{self.by} of {self.of or 'events'}"
        return (
            Column(self.name, "string[]", [], f"{doc}, sorted"),
            Column(f"{self.name}_weight", "float64[]", [], f"weight of each of `{self.name}`, half-life {self.half_life}"),
        )

    def new(self) -> Slot:
        return [0, {}]

    def _advance(self, slot: Slot, epoch: int) -> None:
        factor = 2.0 ** max(slot[0] - epoch, -1_000)
        slot[0], slot[1] = epoch, {k: w for k, v in slot[1].items() if (w := v * factor) > 2.0**-30}

    def _trim(self, weights: dict[str, float]) -> None:
        while len(weights) > self.keys:
            del weights[min(weights, key=lambda k: (weights[k], k))]

    def update(self, slot: Slot, event: Event) -> None:
        at, h = event.event_time, self._h
        if at // h > slot[0]:
            self._advance(slot, at // h)
        weight, weights = 2.0 ** ((at - slot[0] * h) / h), slot[1]
        for key in self._values(event):
            weights[key] = weights.get(key, 0.0) + weight
        if len(weights) > self.keys:
            self._trim(weights)

    def merge(self, slot: Slot, other: Slot) -> None:
        if other[0] > slot[0]:
            self._advance(slot, other[0])
        factor, weights = 2.0 ** max(other[0] - slot[0], -1_000), slot[1]
        for key, w in other[1].items():
            weights[key] = weights.get(key, 0.0) + w * factor
        self._trim(weights)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        factor = 2.0 ** max(-((at - slot[0] * self._h) / self._h), -1_000.0)
        keys = sorted(slot[1])
        return keys, [slot[1][k] * factor for k in keys]

    def pack(self, slot: Slot) -> bytes:
        if not slot[1]:
            return b""
        keys = sorted(slot[1])
        return _pack([slot[0], keys, array("d", [slot[1][k] for k in keys]).tobytes()])

    def unpack(self, data: bytes) -> Slot:
        epoch, keys, weights = _unpack(data)
        return [epoch, dict(zip(keys, array("d", weights), strict=True))]


@dataclass(frozen=True)
class Since(Aggregate):
    """Seconds since the last (or, with `first=True`, the first) event. Column `<name>_s`: float64, at most `cap`, which is also the default."""

    of: Selector | None = None
    first: bool = False
    cap: str = "3650d"

    late_safe: ClassVar[str] = "yes"
    bound = "8 bytes"

    @property
    def columns(self) -> tuple[Column, ...]:
        doc = f"seconds since the {'first' if self.first else 'last'} of {self.of or 'events'}"
        return (Column(f"{self.name}_s", "float64", span_of(self.cap) / SECOND, doc),)

    def new(self) -> Slot:
        return []

    def _take(self, slot: Slot, at: Micros) -> None:
        if not slot:
            slot.append(at)
        elif (at < slot[0]) if self.first else (at > slot[0]):
            slot[0] = at

    def update(self, slot: Slot, event: Event) -> None:
        self._take(slot, event.event_time)

    def merge(self, slot: Slot, other: Slot) -> None:
        for at in other:
            self._take(slot, at)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        cap = span_of(self.cap)
        return (min(at - slot[0], cap) / SECOND if slot else cap / SECOND,)

    def pack(self, slot: Slot) -> bytes:
        return array("q", slot).tobytes()

    def unpack(self, data: bytes) -> Slot:
        return array("q", data).tolist()


def _words(window: str) -> str:
    return "ever" if window == "ever" else f"last {window}"

"""What every aggregate is: durations and tiles, which events count, the columns it gives, and the contract it keeps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, ClassVar, Literal

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

    def selects(self, kind: str, value: float | None) -> bool:
        """Whether an event of this type and value is selected."""
        return any(t == kind and (least is None or (value is not None and value >= least)) for t, least in self.terms)

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


def texts_of(name: str) -> Callable[[Event], tuple[str, ...]]:
    """A reader of a text field of an event, always as a tuple."""
    if name == "categories":
        return lambda event: event.categories
    if name in ("item_id", "user_id", "type"):
        return lambda event: (getattr(event, name),)
    if name in ("session_id", "request_id"):
        return lambda event: () if getattr(event, name) is None else (getattr(event, name),)
    raise BadDeclaration(
        f"field {name!r} is no text field of an event; use item_id, user_id, type, categories, session_id or request_id"
    )


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

    ageing: ClassVar[bool] = False
    """Whether the value is an age: between events it grows by the seconds that pass, up to its default."""

    def stable_until(self, slot: Slot, at: Micros) -> Micros:
        """The first instant after `at` at which time alone changes the value; ageing aside. `EVER` if none."""
        return EVER

    def reading(self, slot: Slot, at: Micros) -> tuple[tuple[Any, ...], Micros]:
        """`value` and `stable_until` together."""
        return self.value(slot, at), self.stable_until(slot, at)

    @abstractmethod
    def pack(self, slot: Slot) -> bytes:
        """The slot's bytes (little-endian, see the subclass); empty for a slot that is as new."""

    @abstractmethod
    def unpack(self, data: bytes) -> Slot:
        """The inverse of `pack` for bytes that are not empty. Raises `ValueError` where they are none of its."""


def words(window: str) -> str:
    return "ever" if window == "ever" else f"last {window}"

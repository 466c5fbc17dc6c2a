"""`Decayed`: weights that halve with time, by forward decay."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, ClassVar, Literal

from streams.aggregates.base import (
    EVER,
    Aggregate,
    BadDeclaration,
    Column,
    Selector,
    Slot,
    span_of,
    texts_of,
)
from streams.aggregates.packing import pack_texts, unpack_texts
from streams.events import Event, Micros

_HEAD = Struct("<qI")


@dataclass(frozen=True)
class Decayed(Aggregate):
    """Weights by key that halve every `half_life`. Columns `<name>`: string[], sorted, and `<name>_weight`: float64[].

    Forward decay (Cormode et al., ICDE 2009) with its landmark at a whole number of half-lives: moving the landmark
    multiplies by a power of two, which is exact, so nothing depends on when a state was last touched. At most `keys`
    keys are kept, the heaviest; what decayed below 2^-60 of an event is dropped.
    """

    by: str = "categories"
    of: Selector | None = None
    half_life: str = "7d"
    keys: int = 64

    mergeable: ClassVar[Literal["exactly", "up to rounding"]] = "up to rounding"
    order_free: ClassVar[bool] = False
    late_safe: ClassVar[str] = "yes"
    half_life_us: Micros = field(init=False, repr=False, compare=False)
    _values: Callable[[Event], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        h = span_of(self.half_life)
        if h == EVER:
            raise BadDeclaration(f'{self.name}: a half-life of "ever" does not decay; use Count')
        object.__setattr__(self, "half_life_us", h)
        object.__setattr__(self, "_values", texts_of(self.by))

    @property
    def bound(self) -> str:
        return f"{self.keys} keys"

    @property
    def columns(self) -> tuple[Column, ...]:
        doc = f"{self.by} of {self.of or 'events'}"
        return (
            Column(self.name, "string[]", [], f"{doc}, sorted"),
            Column(
                f"{self.name}_weight", "float64[]", [], f"weight of each of `{self.name}`, half-life {self.half_life}"
            ),
        )

    def new(self) -> Slot:
        return [0, {}]

    def _advance(self, slot: Slot, epoch: int) -> None:
        factor = 2.0 ** max(slot[0] - epoch, -1_000)
        slot[0], slot[1] = epoch, {k: w for k, v in slot[1].items() if (w := v * factor) > 2.0**-60}

    def _trim(self, weights: dict[str, float]) -> None:
        while len(weights) > self.keys:
            del weights[min(weights, key=lambda k: (weights[k], k))]

    def update(self, slot: Slot, event: Event) -> None:
        at, h = event.event_time, self.half_life_us
        if at // h > slot[0]:
            self._advance(slot, at // h)
        weight, weights = 2.0 ** ((at - slot[0] * h) / h), slot[1]
        for key in self._values(event):
            weights[key] = weights.get(key, 0.0) + weight
        if len(weights) > self.keys:
            self._trim(weights)
        if not weights:
            slot[0] = 0  # as new, as which it is packed

    def merge(self, slot: Slot, other: Slot) -> None:
        if other[0] > slot[0]:
            self._advance(slot, other[0])
        factor, weights = 2.0 ** max(other[0] - slot[0], -1_000), slot[1]
        for key, w in other[1].items():
            weights[key] = weights.get(key, 0.0) + w * factor
        self._trim(weights)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        factor = 2.0 ** max(-((at - slot[0] * self.half_life_us) / self.half_life_us), -1_000.0)
        keys = sorted(slot[1])
        return keys, [slot[1][k] * factor for k in keys]

    def pack(self, slot: Slot) -> bytes:
        """The landmark's half-life (i64), how many keys (u32), their weights (f64), the keys, sorted."""
        if not slot[1]:
            return b""
        keys = sorted(slot[1])
        return _HEAD.pack(slot[0], len(keys)) + array("d", [slot[1][k] for k in keys]).tobytes() + pack_texts(keys)

    def unpack(self, data: bytes) -> Slot:
        epoch, n = _HEAD.unpack_from(data)
        weights, at = array("d", data[_HEAD.size : _HEAD.size + 8 * n]), _HEAD.size + 8 * n
        return [epoch, dict(zip(unpack_texts(data, at, n), weights, strict=True))]

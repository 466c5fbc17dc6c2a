"""What came last, and when: `Recent` and `Since`."""

from bisect import insort
from dataclasses import dataclass
from typing import Any, ClassVar

from streams.aggregates.base import (
    SECOND,
    Aggregate,
    BadDeclaration,
    Column,
    Selector,
    Slot,
    span_of,
    texts_of,
)
from streams.aggregates.packing import (
    I64,
    MOST_TIMES,
    pack_texts,
    pack_times,
    unpack_texts,
    unpack_times,
)
from streams.events import Event, Micros


@dataclass(frozen=True)
class Recent(Aggregate):
    """The newest `n` values of a text field with their ages, newest first.

    Columns `<name>`: string[] and `<name>_age_s`: float64[], seconds.

    Ordered by event time, equal times by the value, so the order of arrival leaves no trace.
    """

    by: str = "item_id"
    of: Selector | None = None
    n: int = 50

    late_safe: ClassVar[str] = "yes, if it is among the newest n"

    def __post_init__(self) -> None:
        if self.by == "categories":
            raise BadDeclaration(
                f"{self.name}: Recent keeps one value an event; use Decayed or Distinct for categories"
            )
        if not 1 <= self.n <= MOST_TIMES:
            raise BadDeclaration(f"{self.name}: n must be at least 1 and at most {MOST_TIMES:,}")
        texts_of(self.by)

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
        """Their times, their texts; oldest first."""
        return pack_times([t for t, _ in slot]) + pack_texts([text for _, text in slot]) if slot else b""

    def unpack(self, data: bytes) -> Slot:
        times, end = unpack_times(data)
        return list(zip(times, unpack_texts(data, end, len(times)), strict=True))


@dataclass(frozen=True)
class Since(Aggregate):
    """Seconds since the last (or, with `first=True`, the first) event.

    Column `<name>_s`: float64, at most `cap`, which is also the default.
    """

    of: Selector | None = None
    first: bool = False
    cap: str = "3650d"

    late_safe: ClassVar[str] = "yes"
    ageing: ClassVar[bool] = True
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
        return I64.pack(slot[0]) if slot else b""

    def unpack(self, data: bytes) -> Slot:
        if len(data) != I64.size:
            raise ValueError(f"an instant has 8 bytes, not {len(data)}")
        return list(I64.unpack(data))

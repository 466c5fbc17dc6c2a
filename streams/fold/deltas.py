"""What the first stage hands to the second: the events that a commit applied, one record a partition of items.

The records from one partition to another are numbered by the events before them, so the second stage notices one that
it never got. Each stage keeps these counts in its meta record.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from streams.events import LATEST, Event
from streams.fold.records import ROW_MAX
from streams.topics import partition_of


class Passed(Event, frozen=True, gc=False, array_like=True):
    """An event without its id and its properties, which no aggregate reads."""


class Delta(msgspec.Struct, array_like=True):
    """`first`: how many events partition `source` of `events` handed to this partition before these."""

    source: int
    first: int
    events: list[Passed]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Delta)


class BadDelta(ValueError):
    """Bytes that are no delta."""


def encode(source: int, first: int, events: Sequence[Event], most: int = ROW_MAX) -> list[bytes]:
    """The records that carry these events, each of at most so many bytes."""
    passed = [
        Passed(
            "", e.user_id, e.item_id, e.type, e.event_time, e.arrival,
            e.value, e.categories, {}, e.session_id, e.request_id,
        )
        for e in events
    ]  # fmt: skip
    data = _encoder.encode(Delta(source, first, passed))
    if len(data) <= most:
        return [data]
    if len(events) == 1:
        raise ValueError(f"an event of {len(data)} bytes does not fit into a record")
    half = len(events) // 2
    return [*encode(source, first, events[:half], most), *encode(source, first + half, events[half:], most)]


def decode(data: bytes) -> Delta:
    """Raises `BadDelta`."""
    try:
        delta = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDelta(f"no delta: {error}") from None
    if not all(0 <= event.event_time <= 2 * LATEST for event in delta.events):  # twice: senders' clocks may be ahead
        raise BadDelta("no delta: the time of an event is out of range")
    return delta


@lru_cache(maxsize=1 << 17)
def _partition_of(item_id: str, partitions: int) -> int:
    return partition_of(item_id.encode(), partitions)


class Outbox:
    """The applied events that no delta carries yet, in their order."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._events: dict[int, list[Event]] = defaultdict(list)

    def add(self, event: Event) -> None:
        self._events[_partition_of(event.item_id, self._partitions)].append(event)

    def take(self, source: int, passed: dict[int, int], most: int) -> list[tuple[int, bytes]]:
        """(partition of items, delta) that carry them; `passed` counts on."""
        events, self._events = self._events, defaultdict(list)
        records = []
        for target in sorted(events):
            first = passed.get(target, 0)
            records += [(target, data) for data in encode(source, first, events[target], most)]
            passed[target] = first + len(events[target])
        return records

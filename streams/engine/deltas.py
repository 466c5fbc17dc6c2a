"""What the first stage hands to the second: the events that a commit applied, one record a partition of items.

The records from one partition to another are numbered by the events before them, so the second stage notices one that
it never got. Each stage keeps these counts in its meta record.
"""

from collections.abc import Sequence

import msgspec

from streams.engine.records import ROW_MAX
from streams.events import Event


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


def encode(source: int, first: int, events: Sequence[Event]) -> list[bytes]:
    """The records that carry these events, each within the size of a row."""
    passed = [
        Passed(
            "", e.user_id, e.item_id, e.type, e.event_time, e.arrival,
            e.value, e.categories, {}, e.session_id, e.request_id,
        )
        for e in events
    ]  # fmt: skip
    data = _encoder.encode(Delta(source, first, passed))
    if len(data) <= ROW_MAX:
        return [data]
    if len(events) == 1:
        raise ValueError(f"an event of {len(data)} bytes does not fit into a record")
    half = len(events) // 2
    return [*encode(source, first, events[:half]), *encode(source, first + half, events[half:])]


def decode(data: bytes) -> Delta:
    """Raises `BadDelta`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDelta(f"no delta: {error}") from None

"""The event: its shape on the wire, its rules at the door, its bytes in Kafka.

Everything that writes to the `events` topic (ingest, replay, simulate) passes `accept`; everything that reads it
passes `decode`. What an event does to a feature is left to `streams.aggregates`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time_ns
from typing import Any

import msgspec

Micros = int
"""Integer microseconds since the Unix epoch, UTC."""


def now() -> Micros:
    """This instant."""
    return time_ns() // 1_000


TYPES = frozenset(["view", "click", "cart", "purchase", "rate", "watch", "review", "like", "dislike", "impression"])
"""The types that the shipped features know. Any other name that matches `CUSTOM_TYPE` is accepted as a custom type."""

CUSTOM_TYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")
ID_MAX_BYTES = 256
VALUE_MAX = 1e6
"""Bound on |value|: sums are kept as 64-bit integers of 1e-6, so nine million values of this size still fit."""
CATEGORIES_MAX, CATEGORY_MAX_CHARS, PROPERTIES_MAX = 32, 64, 64
EARLIEST: Micros = 0
LATEST: Micros = 32_503_680_000_000_000
"""The year 3000: times beyond it are a mistake of units, and states keep times in 64 bits."""
FUTURE_TOLERANCE: Micros = 60_000_000
"""How far an event's own clock may run ahead of its arrival before it is refused (default of the setting)."""


class BadEvent(ValueError):
    """An event that is refused. Its text says which field is wrong and what would be right."""


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that one user did with one item.

    `event_time` is when it happened by the sender's clock, `arrival` when the door took it in; both in microseconds.
    `event_id` is the idempotency key. `request_id` names the recommendation that led to it, if one did.
    """

    event_id: str
    user_id: str
    item_id: str
    type: str
    event_time: Micros
    arrival: Micros
    value: float | None = None
    categories: tuple[str, ...] = ()
    properties: dict[str, str | int | float | bool | None] = {}
    session_id: str | None = None
    request_id: str | None = None


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Event)


def decode(data: bytes, tolerance: Micros = FUTURE_TOLERANCE) -> Event:
    """Read one record of the `events` topic. Raises `BadEvent` on anything that a fold must not apply."""
    try:
        event = _decoder.decode(data)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:  # deep nesting in an unknown field recurses
        raise BadEvent(str(error)) from None
    check(event, tolerance)
    return event


def accept(
    raw: Mapping[str, Any], now: Micros, *, categories: tuple[str, ...] = (), tolerance: Micros = FUTURE_TOLERANCE
) -> Event:
    """Make an event of what a client sent, at the door.

    `now` becomes its arrival. `event_time` may be an RFC 3339 string or Unix seconds, and is `now` when absent.
    `categories` (from the catalogue) stand in when the client sent none. Raises `BadEvent`.
    """
    unknown = raw.keys() - _FIELDS
    if unknown:
        raise BadEvent(
            f"unknown field {sorted(unknown)[0]!r}; known are {', '.join(sorted(_FIELDS))}; "
            "use `properties` for your own"
        )
    fields = dict(raw)
    fields["event_time"] = instant(raw["event_time"]) if raw.get("event_time") is not None else now
    fields["arrival"] = now
    if not fields.get("categories"):
        fields["categories"] = categories
    try:
        event = msgspec.convert({k: v for k, v in fields.items() if v is not None}, Event)
    except msgspec.ValidationError as error:
        raise BadEvent(str(error)) from None
    check(event, tolerance)
    return event


_FIELDS = frozenset(Event.__struct_fields__) - {"arrival"}


def instant(value: object) -> Micros:
    """Microseconds of an RFC 3339 string or of Unix seconds (int or float). Raises `BadEvent`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadEvent("event_time must be an RFC 3339 string or Unix seconds")
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            utc = moment.astimezone(UTC)
        except (ValueError, OverflowError):  # the latter where UTC lies in no year from 1 to 9999
            raise BadEvent(f"event_time {value[:40]!r} is not RFC 3339, e.g. 2026-11-20T12:00:00Z") from None
        if moment.tzinfo is None:
            raise BadEvent("event_time has no time zone; append Z for UTC")
        delta = utc - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if not -1e11 < value < 1e11:
        raise BadEvent("event_time is too large for Unix seconds; was it sent in milliseconds? Divide by 1000")
    return round(value * 1_000_000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check(event: Event, tolerance: Micros) -> None:
    """The rules that hold for every event, at the door and in the fold. Raises `BadEvent`."""
    event_id, user_id, item_id = event.event_id, event.user_id, event.item_id
    ids = event_id + user_id + item_id
    if not (event_id and user_id and item_id and len(ids) <= ID_MAX_BYTES // 4 and ids.isprintable()):  # mostly it is
        for name, text in (("event_id", event_id), ("user_id", user_id), ("item_id", item_id)):
            if not text or len(text.encode("utf-8", "surrogatepass")) > ID_MAX_BYTES or not text.isprintable():
                raise BadEvent(f"{name} must be 1 to {ID_MAX_BYTES} bytes of printable text")
    for name, given in (("session_id", event.session_id), ("request_id", event.request_id)):
        if given is not None and len(given.encode("utf-8", "surrogatepass")) > ID_MAX_BYTES:
            raise BadEvent(f"{name} must be at most {ID_MAX_BYTES} bytes")
    if event.type not in TYPES and not CUSTOM_TYPE.fullmatch(event.type):
        raise BadEvent(f"type {event.type[:40]!r} must match [a-z][a-z0-9_]*, at most 32 characters")
    if event.value is not None and not -VALUE_MAX <= event.value <= VALUE_MAX:
        raise BadEvent(f"value must lie between -{VALUE_MAX:.0f} and {VALUE_MAX:.0f}")
    if len(event.categories) > CATEGORIES_MAX or any(not 0 < len(c) <= CATEGORY_MAX_CHARS for c in event.categories):
        raise BadEvent(f"categories: at most {CATEGORIES_MAX}, each of 1 to {CATEGORY_MAX_CHARS} characters")
    if len(event.properties) > PROPERTIES_MAX:
        raise BadEvent(f"properties: at most {PROPERTIES_MAX}")
    if event.event_time < EARLIEST:
        raise BadEvent("event_time lies before 1970")
    if event.arrival > LATEST:
        raise BadEvent("arrival lies beyond the year 3000; it is in microseconds since 1970")
    if event.event_time > event.arrival + tolerance:
        raise BadEvent(
            f"event_time lies {(event.event_time - event.arrival) / 1e6:.0f} s after arrival; "
            f"at most {tolerance / 1e6:.0f} s is tolerated: check the sender's clock"
        )

"""The door: from the bytes of a request to what goes in and what is refused, each with its index and reason.

Pure: no HTTP, no Kafka. `streams.ingest` gives it bodies and sends what comes out; the rules of a single event are in
`streams.events`, those of an item in `streams.catalogue`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from streams import catalogue, events
from streams.catalogue import BadItem, Item
from streams.events import BadEvent, Event, Micros

JSON = frozenset({"application/json"})
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})

Admitted = TypeVar("Admitted", Event, Item)


PIECES = 128
"""Commas or ends of lines in a body for each element that may be in it: an element has some 110 of them at most, beside
those in its texts. A body of millions of ones would else be cut into as many objects before they are counted."""


class BadBody(ValueError):
    """A request of which nothing can be read. `status` is the HTTP status; the text says what would be right."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Refused(msgspec.Struct, frozen=True, omit_defaults=True):
    """One element that does not go in: its place in the request (0 is the first) and the reason."""

    index: int
    reason: str
    event_id: str | None = None
    item_id: str | None = None


class Generated(msgspec.Struct, frozen=True):
    """The id that an event without one was given."""

    index: int
    event_id: str


@dataclass
class Verdict(Generic[Admitted]):
    """What goes in, and what does not."""

    admitted: list[Admitted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    generated: list[Generated] = field(default_factory=list)


_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def elements(body: bytes, content_type: str, most: int) -> Sequence[bytes | msgspec.Raw]:
    """Cut a body into its elements: one object, an array, or one a line. Blank lines do not count. Raises `BadBody`.

    A media type must be given: browsers send bodies without one, or as text, across origins without asking.
    """
    if max(map(body.count, (b",", b"\n", b"\r"))) > PIECES * most:
        raise BadBody(413, f"far more than {most} in one request, or texts full of commas: send several requests")
    media = content_type.partition(";")[0].strip().lower()
    if media in NDJSON:
        parts: Sequence[bytes | msgspec.Raw] = [line for line in body.splitlines() if not line.isspace() and line]
    elif media in JSON:
        start = body.lstrip()[:1]
        if start == b"[":
            try:
                parts = _elements(body)
            except _UNREADABLE as error:
                raise BadBody(400, f"the body is not JSON: {error}") from None
        elif start == b"{":
            parts = [body]
        else:
            raise BadBody(400, "the body must be a JSON object or an array of them")
    else:
        raise BadBody(
            415,
            f"Content-Type is {media or 'missing'!r}: send application/json (an object or an array) "
            "or application/x-ndjson (one object a line)",
        )
    if not parts:
        raise BadBody(400, "the body holds nothing; send at least one object")
    if len(parts) > most:
        raise BadBody(413, f"{len(parts)} in one request; at most {most} are taken: send several requests")
    return parts


def admit_events(
    parts: Sequence[bytes | msgspec.Raw],
    now: Micros,
    categories: Callable[[str], tuple[str, ...]],
    max_bytes: int,
    tolerance: Micros,
) -> Verdict[Event]:
    """Accept or refuse each element as an event that arrives at `now`. `categories` gives those of an item id."""
    verdict = Verdict[Event]()
    for index, part in enumerate(parts):
        raw: dict[str, Any] = {}
        try:
            raw = _read(part, max_bytes)
            if raw.get("event_id") is None:
                raw["event_id"] = new_id(now)
                verdict.generated.append(Generated(index, raw["event_id"]))
            item_id = raw.get("item_id")
            known = categories(item_id) if isinstance(item_id, str) and not raw.get("categories") else ()
            verdict.admitted.append(events.accept(raw, now, categories=known, tolerance=tolerance))
        except BadEvent as error:
            if verdict.generated and verdict.generated[-1].index == index:
                verdict.generated.pop()
                raw.pop("event_id")
            verdict.refused.append(Refused(index, str(error), event_id=_text(raw.get("event_id"))))
    return verdict


def admit_items(parts: Sequence[bytes | msgspec.Raw], max_bytes: int) -> Verdict[Item]:
    """Accept or refuse each element as an item."""
    verdict = Verdict[Item]()
    for index, part in enumerate(parts):
        raw: dict[str, Any] = {}
        try:
            raw = _read(part, max_bytes)
            verdict.admitted.append(catalogue.accept(raw))
        except (BadEvent, BadItem) as error:
            verdict.refused.append(Refused(index, str(error), item_id=_text(raw.get("item_id"))))
    return verdict


def _read(part: bytes | msgspec.Raw, max_bytes: int) -> dict[str, Any]:
    size = memoryview(part).nbytes
    if size > max_bytes:
        raise BadEvent(f"too large: {size} bytes; at most {max_bytes} are taken")
    try:
        return _object(part)
    except msgspec.ValidationError:
        raise BadEvent("malformed: not a JSON object") from None
    except _UNREADABLE as error:
        raise BadEvent(f"malformed: {error}") from None


def _text(value: object) -> str | None:
    """An id to echo, when it is one and short enough to be."""
    return value if isinstance(value, str) and len(value) <= events.ID_MAX_BYTES else None


_NAMED = re.compile(
    r"(too large|malformed|unknown field|"
    + "|".join(sorted((*Event.__struct_fields__, *Item.__struct_fields__), key=len, reverse=True))
    + ")"
)


def reason_class(reason: str) -> str:
    """The class of a reason, one of few: `too_large`, `malformed`, `unknown_field`, or the name of the wrong field."""
    found = _NAMED.search(reason)
    return found[0].replace(" ", "_") if found else "other"


def new_id(now: Micros) -> str:
    """A new event id: a UUID of version 7 (RFC 9562), so that ids made later sort later."""
    bits = (now // 1000 & (1 << 48) - 1) << 80 | int.from_bytes(urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))

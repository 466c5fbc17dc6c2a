"""Which records of `events` count, restated from the documentation alone: the oracle's half that needs an order.

Shares no code with `streams` or `feature_repo`: the door's rules, duplicates, lateness and the dedup window are written
down here a second time, plainly, so that a mistake there shows. What the counted events amount to is left to
`monitoring.oracle`.
"""

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import xxhash
from aiokafka.partitioner import murmur2

Outcome = Literal["applied", "late", "duplicate", "rejected"]
LATENESS_US = 30 * 86_400_000_000
"""Users: an event so much older than the user's newest one is late."""
BLOCK = 512
"""The dedup window moves in steps of so many applied events."""
YEAR_3000_US = 32_503_680_000_000_000
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Applied(NamedTuple):
    """An event that counts. `amount` is its value in millionths, half to even; None without a value."""

    partition: int
    offset: int
    user_id: str
    item_id: str
    type: str
    t: int
    arrival: int
    value: float | None
    amount: int | None
    categories: list[str]


@dataclass
class Tally:
    """What one partition came to. `applied + late + duplicate + rejected == next_offset - start_offset`.

    `passed`: how many of the applied events are of items of each partition, whose number is text as in JSON.
    """

    start_offset: int = -1
    next_offset: int = -1
    applied: int = 0
    late: int = 0
    duplicate: int = 0
    rejected: int = 0
    fingerprint: int = 0
    passed: dict[str, int] = field(default_factory=dict)


class _Bad(ValueError):
    """Not an event."""


@dataclass
class Counting:
    """Judges the records of one partition in the order of their offsets."""

    partition: int
    partitions: int
    window: int
    """Of the last applied events, how many ids are remembered at least."""
    tolerance_us: int
    tally: Tally = field(default_factory=Tally)
    _newest: dict[str, int] = field(default_factory=dict)
    _order: deque[str] = field(default_factory=deque)
    _seen: set[str] = field(default_factory=set)
    _forgotten: int = 0

    def judge(self, records: Iterable[tuple[int, bytes | None, bytes | None]], keep: Callable[[Applied], None]) -> None:
        """Count (offset, key, value) records; `keep` gets those that are applied."""
        tally = self.tally
        for offset, key, value in records:
            if tally.start_offset < 0:
                tally.start_offset = offset
            tally.next_offset = offset + 1
            try:
                event = parse(value or b"", self.tolerance_us)
                if key != event["user_id"].encode():
                    raise _Bad("keyed by another text")
            except _Bad:
                tally.rejected += 1
                continue
            self._judge(offset, event, keep)

    def _judge(self, offset: int, event: dict[str, Any], keep: Callable[[Applied], None]) -> None:
        tally, user_id, event_id, at = self.tally, event["user_id"], event["event_id"], event["event_time"]
        if event_id in self._seen:
            tally.duplicate += 1
        elif _home(user_id, self.partitions) != self.partition:
            tally.rejected += 1
        elif at < self._newest.get(user_id, 0) - LATENESS_US:
            tally.late += 1
        else:
            self._newest[user_id] = max(self._newest.get(user_id, 0), at)
            self._remember(event_id)
            target = str(_home(event["item_id"], self.partitions))
            tally.passed[target] = tally.passed.get(target, 0) + 1
            value = event.get("value")
            amount = None if value is None else round(float(value) * 1_000_000)
            keep(
                Applied(
                    self.partition, offset, user_id, event["item_id"], event["type"], at, event["arrival"],
                    None if value is None else float(value), amount, list(event.get("categories", ())),
                )
            )  # fmt: skip

    def _remember(self, event_id: str) -> None:
        tally = self.tally
        self._seen.add(event_id)
        self._order.append(event_id)
        tally.applied += 1
        tally.fingerprint = (tally.fingerprint + xxhash.xxh3_64_intdigest(event_id.encode())) % 2**64
        keep_from = max(0, tally.applied // BLOCK - self.window // BLOCK) * BLOCK
        while self._forgotten < keep_from:
            self._seen.discard(self._order.popleft())
            self._forgotten += 1


@lru_cache(maxsize=1 << 18)
def _home(key: str, partitions: int) -> int:
    hashed: int = murmur2(key.encode())
    return (hashed & 0x7FFFFFFF) % partitions


def _no_constant(text: str) -> None:
    raise _Bad(f"{text} is no JSON")


def parse(data: bytes, tolerance_us: int) -> dict[str, Any]:
    """The fields of an event by the rules that the door promises. Raises a `ValueError` where a rule is broken."""
    try:
        event = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _Bad(str(error)) from None
    if not isinstance(event, dict):
        raise _Bad("no object")
    for name in ("event_id", "user_id", "item_id"):
        text = event.get(name)
        if not isinstance(text, str) or not 0 < _size(text) <= 256 or not text.isprintable():
            raise _Bad(name)
    for name in ("session_id", "request_id"):
        text = event.get(name)
        if text is not None and (not isinstance(text, str) or _size(text) > 256):
            raise _Bad(name)
    if not isinstance(event.get("type"), str) or not _TYPE.fullmatch(event["type"]):
        raise _Bad("type")
    _check_times(event, tolerance_us)
    value = event.get("value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6):
        raise _Bad("value")
    _check_lists(event)
    return event


def _check_times(event: dict[str, Any], tolerance_us: int) -> None:
    at, arrival = event.get("event_time"), event.get("arrival")
    if type(at) is not int or type(arrival) is not int:
        raise _Bad("event_time and arrival are whole microseconds")
    if at < 0 or arrival > YEAR_3000_US or at > arrival + tolerance_us:
        raise _Bad("event_time and arrival")


def _check_lists(event: dict[str, Any]) -> None:
    categories, properties = event.get("categories", []), event.get("properties", {})
    if not isinstance(categories, list) or len(categories) > 32:
        raise _Bad("categories")
    if not all(isinstance(c, str) and 0 < len(c) <= 64 and _size(c) for c in categories):
        raise _Bad("categories")
    if not isinstance(properties, dict) or len(properties) > 64:
        raise _Bad("properties")
    if not all(isinstance(v, str | int | float | None) for v in properties.values()):
        raise _Bad("properties")


def _size(text: str) -> int:
    """Bytes in UTF-8; half of a surrogate pair is no text."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise _Bad(str(error)) from None


def count(
    records: dict[int, list[tuple[int, bytes | None, bytes | None]]], window: int, tolerance_us: int, partitions: int
) -> tuple[dict[int, Tally], list[Applied]]:
    """Judge all partitions: the tally of each, and every applied event."""
    tallies: dict[int, Tally] = defaultdict(Tally)
    applied: list[Applied] = []
    for partition, found in sorted(records.items()):
        judge = Counting(partition, partitions, window, tolerance_us)
        judge.judge(found, applied.append)
        tallies[partition] = judge.tally
    return dict(tallies), applied

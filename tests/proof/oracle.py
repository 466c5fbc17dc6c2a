"""The oracle: what must be true after any crash, recomputed from the raw topic.

It reads through librdkafka and counts by hand; of Freshet it uses only the reader of a state's values, and, as a
second and stricter check, that each row is the pure fold of its partition byte for byte.
"""

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import xxhash
from confluent_kafka import Consumer, KafkaError, TopicPartition

from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from freshet.settings import Settings
from streams.engine.fold import UserFold

Raw = list[tuple[int, bytes | None, bytes | None]]


def _consumer(settings: Settings, level: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": settings.kafka,
            "group.id": settings.topic(settings.app_id),  # only to ask for its offsets; it never joins
            "isolation.level": level,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )


def read(settings: Settings, topic: str, partition: int, level: str = "read_committed") -> Raw:
    """All records of a partition as (offset, key, value)."""
    consumer = _consumer(settings, level)
    try:
        consumer.assign([TopicPartition(settings.topic(topic), partition, 0)])
        out: Raw = []
        while True:
            for message in consumer.consume(10_000, 0.2):  # it waits for all 10,000 or the time
                if message.error() is None:
                    out.append((message.offset(), message.key(), message.value()))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    return out
    finally:
        consumer.close()


def unfolded(settings: Settings) -> dict[str, str]:
    """Records that no commit covers yet, by partition; empty when all is quiet."""
    consumer = _consumer(settings, "read_committed")
    try:
        left = {}
        for topic in ("events", "item-deltas"):
            partitions = [TopicPartition(settings.topic(topic), p) for p in range(settings.partitions)]
            done = {tp.partition: max(0, tp.offset) for tp in consumer.committed(partitions, 10)}
            for p in range(settings.partitions):
                if waiting := [offset for offset, _, _ in read(settings, topic, p) if offset >= done[p]]:
                    left[f"{topic} {p}"] = f"{len(waiting)} records, {waiting[0]} to {waiting[-1]}"
        return left
    finally:
        consumer.close()


def wait_until_quiet(settings: Settings, limit_s: float) -> None:
    """Until everything is folded and committed. Raises `TimeoutError`: the verdict is then HANG.

    Quiet is what two looks see, a second apart: a transaction's marks reach its topics one after another, so the
    offsets of `events` may be there just before the deltas of the same transaction.
    """
    give_up, quiet = time.monotonic() + limit_s, 0
    while quiet < 2:
        left = unfolded(settings)
        quiet = 0 if left else quiet + 1
        if time.monotonic() > give_up:
            raise TimeoutError(f"still not folded after {limit_s} s: {left}")
        time.sleep(1.0)


@dataclass
class Wanted:
    """One user, or one item, counted by hand."""

    version: int = -1
    events: int = 0
    likes: int = 0
    views: int = 0
    ratings: list[int] = field(default_factory=list)
    spend: int = 0
    liked: list[tuple[int, str]] = field(default_factory=list)

    def count(self, offset: int, event: dict[str, Any]) -> None:
        kind, value = event["type"], event.get("value")
        self.version = offset
        self.events += 1
        self.views += kind == "view"
        if kind == "rate":
            self.ratings.append(round(value * 1_000_000))
        if kind == "purchase":
            self.spend += round(value * 1_000_000)
        if kind in ("click", "cart", "purchase", "like") or (kind == "rate" and value >= 4):
            self.likes += 1
            self.liked.append((event["event_time"], event["item_id"]))

    def mean_rating(self) -> float:
        return sum(self.ratings) / 1_000_000 / len(self.ratings) if self.ratings else 0.0


def violations(settings: Settings) -> list[str]:
    """Every promise that does not hold, in words. Empty: exactly once."""
    found: list[str] = []
    items: defaultdict[str, Wanted] = defaultdict(Wanted)
    newest = 0
    for p in range(settings.partitions):
        newest = max(newest, _check_users(settings, p, items, found))
    _check_items(settings, items, newest, found)
    return found


def _check_users(settings: Settings, partition: int, items: dict[str, Wanted], found: list[str]) -> int:
    raw = read(settings, "events", partition, "read_uncommitted")
    users: defaultdict[bytes, Wanted] = defaultdict(Wanted)
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    poison: list[int] = []
    fingerprint = newest = 0
    for offset, key, value in raw:
        event = _event(key, value)
        if event is None or key is None:
            poison.append(offset)
        elif event["event_id"] in seen:
            counts["duplicate"] += 1
        else:
            seen.add(event["event_id"])
            counts["applied"] += 1
            fingerprint = (fingerprint + xxhash.xxh3_64_intdigest(event["event_id"].encode())) % 2**64
            newest = max(newest, event["event_time"])
            users[key].count(offset, event)
            items[event["item_id"]].count(offset, event)

    where = f"events {partition}"
    log = read(settings, "user-features", partition)
    rows: dict[bytes, bytes] = {}
    versions: dict[bytes, int] = {}
    for _, key, value in log:
        assert key is not None
        if not key.startswith(b"\0"):
            version = int.from_bytes(value[4:12], "little", signed=True) if value else -1
            if version <= versions.get(key, -1):
                found.append(f"{where}: the version of {key!r} went from {versions[key]} to {version}")
            versions[key] = version
        if value is not None:
            rows[key] = value
    meta = json.loads(rows.get(b"\0meta", b"{}"))
    want = {
        "start_offset": 0, "next_offset": len(raw), "applied": counts["applied"], "late": 0,
        "duplicate": counts["duplicate"], "rejected": len(poison), "fingerprint": fingerprint,
    }  # fmt: skip
    if meta != want:
        found.append(f"{where}: meta is {meta}, counted by hand {want}")
    states = {key: row for key, row in rows.items() if not key.startswith(b"\0")}
    if states.keys() != users.keys():
        found.append(f"{where}: {len(states)} states for {len(users)} users")
    wrong = [key for key in states.keys() & users.keys() if not _same_user(states[key], users[key], newest)]
    if wrong:
        found.append(f"{where}: {len(wrong)} of {len(users)} users differ, e.g. {wrong[0]!r}")
    letters = [json.loads(value or b"{}") for _, _, value in read(settings, "dead-letters", partition)]
    if (quoted := [letter["offset"] for letter in letters if letter["topic"] == "events"]) != poison:
        found.append(
            f"{where}: dead letters of {len(quoted)} offsets ({len(set(quoted))} distinct), poison at {len(poison)}"
        )

    fold = UserFold.of(settings, partition)
    fold.fold(raw)
    pure = dict(fold.snapshot().rows)
    if pure != states:
        differ = sum(states.get(key) != row for key, row in pure.items())
        found.append(f"{where}: {differ} rows are not the pure fold of their partition")
    return newest


def _event(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """The event, or None if no fold may apply it: the workload's poison, told apart without Freshet's rules."""
    try:
        event = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    good = isinstance(event, dict) and event.get("event_id", "p") != "p" and str(event["user_id"]).encode() == key
    return event if good else None


def _same_user(row: bytes, want: Wanted, at: int) -> bool:
    values = user_profile.values(row, at + 1_000_000)
    history = [item_id for _, item_id in sorted(want.liked)[-50:]][::-1]
    got = (
        values["events_ever"],
        values["likes_ever"],
        values["views_7d"],
        values["rating_ever"],
        values["spend_30d"],
        values["history"],
    )
    return got == (want.events, want.likes, want.views, want.mean_rating(), want.spend / 1_000_000, history)


def _check_items(settings: Settings, items: dict[str, Wanted], newest: int, found: list[str]) -> None:
    states: dict[str, bytes] = {}
    for p in range(settings.partitions):
        rows = {key: value for _, key, value in read(settings, "item-features", p) if key and not key.startswith(b"\0")}
        if twice := rows.keys() & {k.encode() for k in states}:
            found.append(f"items: {len(twice)} of partition {p} are in another one, too")
        states |= {key.decode(): value for key, value in rows.items() if value}
    if states.keys() != items.keys():
        found.append(f"items: {len(states)} states for {len(items)} items")
    wrong, counted = [], 0
    for item_id in states.keys() & items.keys():
        values, want = item_profile.live_values(states[item_id], newest + 1_000_000), items[item_id]
        counted += values["likes_ever"]
        got = (values["likes_ever"], values["views_7d"], values["ratings_ever"], values["rating_ever"])
        if got != (want.likes, want.views, len(want.ratings), want.mean_rating()):
            wrong.append(item_id)
    if wrong:
        by_hand = sum(want.likes for want in items.values())
        found.append(f"items: {len(wrong)} of {len(items)} differ, with {counted} likes of {by_hand}, e.g. {wrong[0]}")

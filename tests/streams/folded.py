"""A small history, archived and folded as the worker folds it: rows and deltas at every commit."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from freshet.settings import Settings
from streams.events import Event, Micros, encode
from streams.fold.items import ItemFold
from streams.fold.users import UserFold
from streams.sinks import files
from streams.topics import EVENTS, ITEM_FEATURES, USER_FEATURES, partition_of

START: Micros = 1_700_000_000_000_000
SECOND: Micros = 1_000_000
COMMIT = 37
"""Records of a commit: more than a few, and no divisor of anything."""


def history(n: int, seed: int = 1, users: int = 20, items: int = 15) -> list[Event]:
    """Events in the order of their arrival, some delayed by minutes, over about three days."""
    chance = random.Random(seed)
    events, now = [], START
    for k in range(n):
        now += chance.randrange(1, 600 * SECOND)
        delay = chance.choice([0, 0, 0, SECOND, 12 * SECOND, 400 * SECOND])
        kind = chance.choice(["view", "click", "impression", "purchase", "rate", "like"])
        value = chance.choice([1.0, 4.5, 5.0]) if kind in ("rate", "purchase") else None
        i = chance.randrange(items)
        events.append(
            Event(f"e{k}", f"u{chance.randrange(users)}", f"i{i}", kind, now - delay, now, value, ("a", f"c{i % 4}"))
        )
    return events


@dataclass
class Record:
    """As Kafka hands it over."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = START // 1_000


@dataclass
class Folded:
    """Rows in the order in which a worker's commits wrote them."""

    user_rows: list[tuple[bytes, bytes]] = field(default_factory=list)
    item_rows: list[tuple[bytes, bytes]] = field(default_factory=list)


def partitioned(settings: Settings, events: Iterable[Event]) -> dict[int, list[Record]]:
    """The records of each partition of `events`."""
    records: dict[int, list[Record]] = {p: [] for p in range(settings.partitions)}
    for event in events:
        key = event.user_id.encode()
        mine = records[partition_of(key, settings.partitions)]
        mine.append(Record(len(mine), key, encode(event)))
    return records


def archive(settings: Settings, records: dict[int, list[Record]], size: int = 101) -> None:
    """Write the archive's files, `size` records each."""
    for partition, mine in records.items():
        for at in range(0, len(mine), size):
            files.write(settings.archive_dir, EVENTS, partition, mine[at : at + size])


def fold(settings: Settings, records: dict[int, list[Record]]) -> Folded:
    """What the worker makes of them, commit by commit."""
    made, deltas = Folded(), []
    for partition, mine in records.items():
        users = UserFold.of(settings, partition)
        for at in range(0, len(mine), COMMIT):
            users.fold([(r.offset, r.key, r.value) for r in mine[at : at + COMMIT]])
            snapshot = users.snapshot()
            made.user_rows += snapshot.rows
            deltas += snapshot.deltas
    items = {p: ItemFold(p) for p in range(settings.partitions)}
    for offset, (target, value) in enumerate(deltas):
        items[target].fold([(offset, None, value)])
        made.item_rows += items[target].snapshot().rows
    return made


async def publish(settings: Settings, made: Folded) -> None:
    """Write the rows to their topics, as the agents do, with a meta record among them."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka)
    await producer.start()
    try:
        for topic, rows in ((USER_FEATURES, made.user_rows), (ITEM_FEATURES, made.item_rows)):
            for key, value in [(b"\0meta", b"{}"), *rows]:
                partition = 0 if key == b"\0meta" else partition_of(key, settings.partitions)
                await producer.send(settings.topic(topic), value, key, partition)
        await producer.flush()
    finally:
        await producer.stop()

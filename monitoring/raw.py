"""Reads topics as they are, through librdkafka: another client than the one that wrote them."""

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from freshet.settings import Settings

Record = tuple[int, bytes | None, bytes | None]
"""(offset, key, value)"""
BATCH, WAIT_S, SILENCE_S = 10_000, 0.2, 30.0
META = b"\0meta"
LEADER_TRIES = 50
"""Ten seconds: an election takes less."""
NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._UNKNOWN_PARTITION)


class ReadError(RuntimeError):
    """A topic cannot be read to its end. The text says which."""


@contextmanager
def _consumer(settings: Settings, level: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka,
            "group.id": settings.topic(
                f"{settings.app_id}-verify"
            ),  # needed by the client; it joins and commits nothing
            "isolation.level": level,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        yield consumer
    except KafkaException as error:
        raise ReadError(f"Kafka at {settings.kafka}: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """(first offset, end offset). A topic just made, or a broker just back, has no leader at once."""
    for _ in range(LEADER_TRIES):
        try:
            return _watermarks(consumer, partition)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER:
                raise
            time.sleep(WAIT_S)
    return _watermarks(consumer, partition)


def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    found: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=10)
    return found


def bounds(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """Partition -> (first offset, end offset)."""
    with _consumer(settings, "read_uncommitted") as consumer:
        partitions = (TopicPartition(settings.topic(topic), p) for p in range(settings.partitions))
        return {tp.partition: _ends(consumer, tp) for tp in partitions}


def read(
    settings: Settings, topic: str, start: dict[int, int] | None = None, level: str = "read_committed"
) -> Generator[tuple[int, Record], None, None]:
    """(partition, record) of a topic, from `start` or the beginning to its present end; each partition in order."""
    with _consumer(settings, level) as consumer:
        begin = []
        for p in range(settings.partitions):
            first, end = _ends(consumer, TopicPartition(settings.topic(topic), p))
            at = max(first, (start or {}).get(p, first))
            if at < end:
                begin.append(TopicPartition(settings.topic(topic), p, at))
        consumer.assign(begin)
        left, silent = {tp.partition for tp in begin}, 0.0
        while left:
            messages = consumer.consume(BATCH, WAIT_S)
            silent = 0.0 if messages else silent + WAIT_S
            if silent > SILENCE_S:
                raise ReadError(
                    f"{settings.topic(topic)} at {settings.kafka}: nothing came for {SILENCE_S:.0f} s; "
                    "is a transaction left open, or the broker gone?"
                )
            for message in messages:
                error = message.error()
                if error is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None  # only errors come without
                    assert offset is not None
                    yield partition, (offset, message.key(), message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                elif not error.retriable():
                    raise ReadError(f"{settings.topic(topic)}: {error.str()}")


@dataclass
class Rows:
    """The newest committed row of each key of a compacted topic.

    `meta` are the engine's own records by partition, `last` the last record's offset, `regressions` keys whose version
    went down on the way.
    """

    rows: dict[str, bytes] = field(default_factory=dict)
    home: dict[str, int] = field(default_factory=dict)
    meta: dict[int, dict[str, Any]] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    regressions: list[str] = field(default_factory=list)


def rows(settings: Settings, topic: str) -> Rows:
    """Read a topic of states. A version is the 64-bit number behind the four bytes of format and profile."""
    found, versions = Rows(), dict[str, int]()
    for partition, (offset, key, value) in read(settings, topic):
        found.last[partition] = offset
        if key == META and value is not None:
            found.meta[partition] = json.loads(value)
        if key is None or key[:1] == b"\0":
            continue
        name = key.decode()
        if value is None:
            found.rows.pop(name, None)
            continue
        version = int.from_bytes(value[4:12], "little", signed=True)
        if version < versions.get(name, -1) or found.home.get(name, partition) != partition:
            found.regressions.append(name)
        versions[name], found.rows[name], found.home[name] = version, value, partition
    return found


def metas(settings: Settings, topic: str) -> dict[int, dict[str, Any]]:
    """The engine's newest meta record of each partition, from the log's tail where it lies, else from all of it."""
    found: dict[int, dict[str, Any]] = {}
    ends = bounds(settings, topic)
    for tail in (2_000, 200_000, None):
        start = None if tail is None else {p: max(first, end - tail) for p, (first, end) in ends.items()}
        for partition, (_, key, value) in read(settings, topic, start):
            if key == META and value is not None:
                found[partition] = json.loads(value)
        if all(p in found or end == first for p, (first, end) in ends.items()):
            break
    return found

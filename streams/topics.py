"""The topics: their names, their configuration, and which partition a key belongs to.

Producers, agents, sinks and the oracle take names and partitions from here. What travels in a topic is left to
`streams.events` and `streams.profiles`.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.partitioner import murmur2

from freshet.settings import Settings

try:
    from streams.kernel import partition_of as partition_by_kernel
except ImportError:  # Python had no headers where Freshet was installed
    partition_by_kernel = None  # type: ignore[assignment]

EVENTS, ITEMS = "events", "items"
USER_FEATURES, ITEM_DELTAS, ITEM_FEATURES = "user-features", "item-deltas", "item-features"
REQUESTS, RESPONSES, DEAD_LETTERS = "requests", "responses", "dead-letters"

DAY_MS = 86_400_000
MESSAGE_BYTES = 1_048_588
"""Kafka's own default for the largest batch; the engine's batches (`streams.engine.transaction`) fit in it."""
READY_S = 20.0
"""A new topic has leaders within a second; a busy single broker has been seen to take five."""


class TopicsError(RuntimeError):
    """The topics on the cluster are not those that Freshet needs. Its text says which, and what to do."""


@dataclass(frozen=True)
class TopicSpec:
    """`partitions` None: as many as the setting. A compacted topic keeps each key's newest record for ever."""

    partitions: int | None = None
    compacted: bool = False
    retention_ms: int = 30 * DAY_MS
    max_message_bytes: int = MESSAGE_BYTES

    def configs(self, replication: int) -> dict[str, str]:
        """Kafka's names for it. Retention counts from the append: a replay's records would else expire at once."""
        configs = {
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
            "min.insync.replicas": "2" if replication > 2 else "1",
        }
        if self.compacted:  # small segments: only closed ones are compacted, and a restore reads what is left
            return configs | {
                "cleanup.policy": "compact",
                "segment.ms": "600000",
                "segment.bytes": "67108864",
                "min.cleanable.dirty.ratio": "0.5",
            }
        return configs | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


TOPICS: dict[str, TopicSpec] = {
    EVENTS: TopicSpec(),
    ITEMS: TopicSpec(compacted=True),
    USER_FEATURES: TopicSpec(compacted=True),
    ITEM_DELTAS: TopicSpec(retention_ms=7 * DAY_MS),
    ITEM_FEATURES: TopicSpec(compacted=True),
    REQUESTS: TopicSpec(),
    RESPONSES: TopicSpec(),
    DEAD_LETTERS: TopicSpec(),
}


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2, the default of the Java client and of aiokafka, so that any client agrees."""
    if partition_by_kernel is not None:
        return partition_by_kernel(key, partitions)
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


async def create_topics(settings: Settings) -> None:
    """Create the topics that do not exist yet, and check those that do. Raises `TopicsError`."""
    wanted = {settings.topic(name): (spec, spec.partitions or settings.partitions) for name, spec in TOPICS.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        missing = wanted.keys() - set(await admin.list_topics())
        new = [
            NewTopic(name, partitions, settings.replication, topic_configs=spec.configs(settings.replication))
            for name, (spec, partitions) in wanted.items()
            if name in missing
        ]
        if new:
            _check_created(await admin.create_topics(new), settings)
        await _wait_for_leaders(admin, {name: partitions for name, (_, partitions) in wanted.items()})
        await _check_configs(admin, {name: spec for name, (spec, _) in wanted.items() if name not in missing})
    finally:
        await admin.close()


def _check_created(response: Any, settings: Settings) -> None:
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if code and error.__name__ != "TopicAlreadyExistsError":  # another process may have been quicker
            detail = rest[0] if rest and rest[0] else error.description
            todo = f"check FRESHET_REPLICATION ({settings.replication}) and the cluster's rights"
            raise TopicsError(f"topic {name!r} cannot be created on {settings.kafka}: {detail}; {todo}")


async def _wait_for_leaders(admin: AIOKafkaAdminClient, partitions: dict[str, int]) -> None:
    """Until each partition has a leader: a producer that meets a topic without one fails at once."""
    deadline = monotonic() + READY_S
    while True:
        topics = {topic["topic"]: topic for topic in await admin.describe_topics(list(partitions))}
        waiting = [
            name
            for name, topic in topics.items()
            if topic["error_code"] or any(p["error_code"] or p["leader"] < 0 for p in topic["partitions"])
        ]
        for name, topic in topics.items():
            have, want = len(topic["partitions"]), partitions[name]
            if name not in waiting and have != want:
                raise TopicsError(
                    f"topic {name!r} has {have} partitions, FRESHET_PARTITIONS says {want}. That would part keys from "
                    f"their states: set FRESHET_PARTITIONS={have}, or use another FRESHET_TOPIC_PREFIX"
                )
        if not waiting:
            return
        if monotonic() > deadline:
            raise TopicsError(f"no leader after {READY_S:.0f} s for: {', '.join(sorted(waiting))}; are all brokers up?")
        await asyncio.sleep(0.1)


async def _check_configs(admin: AIOKafkaAdminClient, specs: dict[str, TopicSpec]) -> None:
    """An existing topic must take the engine's batches, and keep what must be kept."""
    if not specs:
        return
    keys = {"max.message.bytes": "", "cleanup.policy": ""}  # the values are ignored
    for response in await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, configs=keys) for name in specs]
    ):
        for _code, _message, _kind, name, entries in response.resources:
            found = {entry[0]: entry[1] for entry in entries}
            if int(found.get("max.message.bytes", MESSAGE_BYTES)) < specs[name].max_message_bytes:
                have, need = found["max.message.bytes"], specs[name].max_message_bytes
                raise TopicsError(
                    f"topic {name!r} takes batches of {have} bytes only; set its max.message.bytes to {need}"
                )
            if specs[name].compacted and found.get("cleanup.policy", "compact") != "compact":
                have = found["cleanup.policy"]
                raise TopicsError(f"topic {name!r} is state; set its cleanup.policy to compact (it is {have})")

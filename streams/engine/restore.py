"""Read states back: the changelog of some partitions, from the checkpoint to its end, committed records only.

Rows stay as bytes. Whoever restores must have opened the partitions'
transactions before, so that nothing is written meanwhile.
"""

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

POLL_MS = 200
STUCK_S = 30.0
"""A broker that is alive answers within a second; a transaction left open ends after `transaction.TIMEOUT_MS`."""
FETCH_BYTES = 4 << 20


class Loadable(Protocol):
    """What a changelog is read into, e.g. a `Fold`."""

    def resume(self, oldest: int, end: int) -> int: ...
    def load(self, key: bytes, value: bytes | None) -> None: ...
    async def loaded_to(self, position: int) -> None: ...


class RestoreStuck(RuntimeError):
    """The broker sent no records although the changelog has more."""


async def restore(bootstrap: str, topic: str, targets: Mapping[int, Loadable]) -> int:
    """Load each partition's records into its target, in their order. Returns how many. Raises `RestoreStuck`."""
    if not targets:
        return 0
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        check_crcs=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    try:
        left = {TopicPartition(topic, p) for p in targets}
        consumer.assign(left)
        oldest, ends = await consumer.beginning_offsets(left), await consumer.end_offsets(left)
        for tp in left:
            consumer.seek(tp, targets[tp.partition].resume(oldest[tp], ends[tp]))
        count, at, moved_at = 0, dict.fromkeys(left, -1), monotonic()
        while True:
            now = {tp: await consumer.position(tp) for tp in left}  # moves over transaction marks, too
            for tp, position in now.items():
                await targets[tp.partition].loaded_to(position)
            left = {tp for tp in left if now[tp] < ends[tp]}
            if not left:
                return count
            if now != at:
                at, moved_at = now, monotonic()
            elif monotonic() - moved_at > STUCK_S:
                waiting = sorted(tp.partition for tp in left)
                raise RestoreStuck(
                    f"{topic}: nothing came for {STUCK_S:.0f} s, partitions {waiting} are not at their ends"
                )
            for tp, records in (await consumer.getmany(*left, timeout_ms=POLL_MS)).items():
                load = targets[tp.partition].load
                for record in records:
                    load(record.key, record.value)
                count += len(records)
    finally:
        await consumer.stop()


class Offsets(NamedTuple):
    """Of one partition: the oldest record that is left, and what the group has committed (None: nothing)."""

    oldest: int
    committed: int | None


async def offsets(bootstrap: str, group: str, topic: str, partitions: Iterable[int]) -> dict[int, Offsets]:
    """Where each partition begins, and how far the group has come in it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        targets = [TopicPartition(topic, p) for p in partitions]
        consumer.assign(targets)
        oldest = await consumer.beginning_offsets(targets)
        return {tp.partition: Offsets(oldest[tp], await consumer.committed(tp)) for tp in targets}
    finally:
        await consumer.stop()

"""Read states back: the changelog of some partitions from the checkpoint on, committed records only.

To its end, for a partition that is ours: its transactions must have been opened before, so that nothing is written
meanwhile. Or on and on, for one that another worker owns. Rows stay as bytes.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import NamedTuple, NoReturn

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.engine.kept import KeptRows
from streams.fold.records import Own

POLL_MS = 50
"""A restore waits so long where only the mark of a transaction is left."""
STUCK_S = 30.0
"""A broker that is alive answers within a second; a transaction left open ends after `transaction.TIMEOUT_MS`."""
FETCH_BYTES = 4 << 20


class Target(NamedTuple):
    """What a changelog is read into: the rows, and who wants the engine's own records."""

    rows: KeptRows
    load_own: Callable[[Own], None] = lambda own: None

    async def resume(self, oldest: int, end: int) -> int:
        """Load the checkpoint, where there is one. The offset of the changelog to go on from."""
        async for own in self.rows.resume(oldest, end):
            self.load_own(own)
        return max(oldest, self.rows.position)


class RestoreStuck(RuntimeError):
    """The broker sent no records although the changelog has more."""


async def restore(bootstrap: str, topic: str, targets: Mapping[int, Target]) -> int:
    """Load each partition's records into its target, in their order. Returns how many. Raises `RestoreStuck`."""
    if not targets:
        return 0
    async with _reading(bootstrap, topic, targets) as (consumer, ends):
        left, count, at, moved_at = set(ends), 0, dict.fromkeys(ends, -1), monotonic()
        while True:
            now = await _loaded(consumer, left, targets)
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
            count += await _load(consumer, left, targets)


async def follow(
    bootstrap: str, topic: str, targets: Mapping[int, Target], lag: Callable[[int, int], None]
) -> NoReturn:
    """Load each partition's records as they come, until cancelled. `lag(partition, records)` says what is left."""
    async with _reading(bootstrap, topic, targets) as (consumer, ends):
        while True:
            for tp, position in (await _loaded(consumer, ends, targets)).items():
                if targets[tp.partition].rows.due:
                    await targets[tp.partition].rows.rewrite()
                lag(tp.partition, max(0, (consumer.highwater(tp) or ends[tp]) - position))
            await _load(consumer, ends, targets)


@asynccontextmanager
async def _reading(
    bootstrap: str, topic: str, targets: Mapping[int, Target]
) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[TopicPartition, int]]]:
    """A consumer that stands where each target goes on, and where each partition ends now."""
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
        partitions = {TopicPartition(topic, p) for p in targets}
        consumer.assign(partitions)
        oldest, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for tp in partitions:
            consumer.seek(tp, await targets[tp.partition].resume(oldest[tp], ends[tp]))
        yield consumer, ends
    finally:
        await consumer.stop()


async def _load(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], targets: Mapping[int, Target]) -> int:
    """What the next fetch brings. Returns how many records."""
    count = 0
    for tp, records in (await consumer.getmany(*partitions, timeout_ms=POLL_MS)).items():
        rows, load_own = targets[tp.partition]
        load_own(rows.load([(record.key, record.value) for record in records]))
        count += len(records)
    return count


async def _loaded(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], targets: Mapping[int, Target]
) -> dict[TopicPartition, int]:
    """Tell each target up to where it is loaded, transaction marks included. Returns these positions."""
    now = {tp: await consumer.position(tp) for tp in partitions}
    for tp, position in now.items():
        targets[tp.partition].rows.loaded_to(position)
    return now


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

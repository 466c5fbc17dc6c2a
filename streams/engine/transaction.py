"""One commit of one source partition: all that it writes and how far it has read, or nothing of it.

The transactional id is fixed by the source partition, so whoever opens it fences every earlier owner, even one that
was stopped and wakes up again (the first exactly-once of Kafka Streams; it does without KIP-447). What is written, and
when, is left to `streams.engine.owner`.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from streams.engine.batches import BATCH_BYTES, Batch

TIMEOUT_MS = 15_000
"""A transaction that its owner left open holds up readers for so long; a new owner ends it at once."""
REQUEST_TIMEOUT_MS = 20_000

Outputs = Mapping[TopicPartition, list[Batch]]


class Sent(NamedTuple):
    """What went to one target, and the offset after it."""

    batches: list[Batch]
    end: int

    @property
    def records(self) -> int:
        return sum(batch.record_count() for batch in self.batches)


class Transactions:
    """The transactional producer of one source partition."""

    def __init__(self, bootstrap: str, group: str, source: TopicPartition) -> None:
        self._group, self._source = group, source
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            transactional_id=f"{group}-{source.topic}-{source.partition}",
            acks="all",
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            max_request_size=BATCH_BYTES,
            transaction_timeout_ms=TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )

    async def open(self) -> None:
        """Fence earlier owners and end what they left open. After this nothing of theirs can change any more."""
        await self._producer.start()

    async def close(self) -> None:
        await self._producer.stop()

    async def commit(self, outputs: Outputs, next_offset: int) -> dict[TopicPartition, Sent]:
        """Write all of it and the source's offset in one transaction. What went to each target.

        On any exception the process must be left.
        """
        await self._producer.begin_transaction()
        sent = await asyncio.gather(*(self._send(target, some) for target, some in outputs.items()))
        await self._producer.send_offsets_to_transaction(
            {self._source: OffsetAndMetadata(next_offset, "")}, self._group
        )
        await self._producer.commit_transaction()
        return dict(zip(outputs, sent, strict=True))

    async def _send(self, target: TopicPartition, some: list[Batch]) -> Sent:
        """aiokafka commits although one has failed, so each one's future is asked."""
        futures = [await self._producer.send_batch(batch, target.topic, partition=target.partition) for batch in some]
        placed = await asyncio.gather(*futures)
        return Sent(some, int(placed[-1].offset) + int(some[-1].record_count()))

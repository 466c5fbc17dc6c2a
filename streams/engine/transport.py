"""Batches for Faust: everything that a fetch brought of one partition reaches the agent as one event.

Faust's own path costs about 70 us a record; this one costs 1 us, because it hands aiokafka's records through
unopened. The consumer reads committed records only, for which Faust has no setting. Each private name of Faust and
aiokafka that this relies on is guarded by `tests/streams/test_engine_private_names.py`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import faust
from aiokafka.consumer import fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

FETCH_WAIT_MS = 200
"""How long a fetch waits for a first record. A rebalance waits for the fetch on its way, 1.5 s with Faust's own."""


class RawRecord(Protocol):
    """What a batch holds: aiokafka's own parsed record."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Batch(NamedTuple):
    """Records of one partition, in the order of their offsets; never empty."""

    topic: str
    partition: int
    records: Sequence[RawRecord]


class _RawPartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Hand out aiokafka's parsed record instead of copying its fields into a dataclass (saves 0.7 us a record)."""

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        # Process-wide, so not before the worker really starts: other consumers in a test process want whole records.
        fetcher.PartitionRecords = _RawPartitionRecords
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's look for a stream that hangs fails where a position is unknown, as after a broker's restart."""
        with suppress(AssertionError):
            super().verify_event_path(now, tp)

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(self._seek_all)

    async def _seek_all(self) -> Any:
        """After a rebalance, really go back: aiokafka leaves a partition whose committed offset is none or 0 where it
        is, and what was fetched and dropped in the rebalance would be lost without a trace."""
        consumer = self._ensure_consumer()
        offsets = await consumer.seek_to_committed()
        if unmoved := [tp for tp, offset in offsets.items() if not offset]:
            await consumer.seek_to_beginning(*unmoved)
        return offsets


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 (Faust's name)
        fetched: Mapping[TP, Sequence[RawRecord]] = await super()._getmany(active_partitions, timeout)
        return {tp: [Batch(tp.topic, tp.partition, records)] for tp, records in fetched.items() if records}

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        last = record.records[-1]
        at_s, generation = (last.timestamp or 0) / 1000.0, self.app.consumer_generation_id
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, at_s, last.timestamp_type, [], None, record, None, -1, -1, tp,
            generation_id=generation,
        )  # fmt: skip


class BatchTransport(driver.Transport):
    """Set as `app.transport` before the app starts (a public setter)."""

    Consumer = _Consumer


class BatchSchema(faust.Schema[Any, Any]):
    """Hands the batch through untouched. The topic must have `acks=False`: Faust would take a batch for a gap."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.value

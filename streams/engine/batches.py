"""The batches that a commit sends: packed by the kernel where it was built, else by aiokafka's own builder.

`PackedBatch` is to aiokafka's producer what its `BatchBuilder` is; `tests/streams/test_engine_private_names.py` guards
what the producer asks of one, and of the request that takes it along. When they are sent is left to
`streams.engine.transaction`.
"""

from collections.abc import Iterable
from struct import Struct
from time import time
from typing import TypeAlias

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.types import Int16, Int32, String
from crc32c import crc32c

from streams.fold.records import Row
from streams.fold.rows import Heap, TakenRows

try:
    from streams.kernel import pack
except ImportError:  # Python had no headers where Freshet was installed
    pack = None  # type: ignore[assignment]

NONE = TakenRows(Heap(), ())
BATCH_BYTES = 1_000_000
"""A batch is one record to the broker's limit (1,048,588 by default, checked by `streams.topics`)."""
HEADER = Struct(">qiibIhiqqqhii")
LENGTH_FROM, CRC_FROM, _CRC = 12, 21, Struct(">I")
_TRANSACTIONAL = 0x10


class PackedBatch:
    """A whole batch of records, which waits for the number that its producer gives it."""

    def __init__(self, data: bytearray, records: int, at_ms: int) -> None:
        self._data, self._records, self._at_ms = data, records, at_ms

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        length, last = len(self._data) - LENGTH_FROM, self._records - 1
        HEADER.pack_into(
            self._data, 0, 0, length, -1, 2, 0, _TRANSACTIONAL, last, self._at_ms, self._at_ms,
            producer_id, producer_epoch, base_sequence, self._records,
        )  # fmt: skip
        _CRC.pack_into(self._data, 17, crc32c(memoryview(self._data)[CRC_FROM:]))

    def _build(self) -> bytearray:
        return self._data

    def record_count(self) -> int:
        return self._records

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is closed from the start."""


Batch: TypeAlias = PackedBatch | BatchBuilder


def batches(rows: Iterable[Row], taken: TakenRows = NONE) -> list[Batch]:
    """What was taken, then rows, in their order, in as few batches as hold them.

    Raises `ValueError` for a row that none can hold.
    """
    at_ms = int(time() * 1000)
    if pack is not None:
        full = pack(taken.held, taken.which, list(rows), BATCH_BYTES)
        return [PackedBatch(data, records, at_ms) for data, records in full]
    made: list[Batch] = []
    batch = _builder()
    for key, value in (*taken, *rows):
        if batch.append(timestamp=at_ms, key=key, value=value) is None:
            made.append(batch)
            batch = _builder()
            if batch.append(timestamp=at_ms, key=key, value=value) is None:
                raise ValueError(f"a record of {len(value or b'')} bytes does not fit into a batch of {BATCH_BYTES}")
    if batch.record_count():
        made.append(batch)
    for full in made:
        full.close()
    return made


def _builder() -> BatchBuilder:
    return BatchBuilder(BATCH_BYTES, 0, is_transactional=1)


def packed(rows: Iterable[Row], taken: TakenRows = NONE) -> list[bytes | bytearray]:
    """The batches that no producer sends."""
    made = batches(rows, taken)
    for batch in made:
        batch._set_producer_state(-1, -1, -1)
    return [built(batch) for batch in made]


def built(batch: Batch) -> bytes | bytearray:
    """As it was sent, or would have been."""
    data: bytes | bytearray = batch._build()
    return data


def encoded(request: ProduceRequest_v7) -> bytes:
    """What aiokafka's own `encode` gives, which copies each batch six times, once for each level of its schema."""
    asked = request.__dict__
    parts = [String("utf-8").encode(asked["transactional_id"]), Int16.encode(asked["required_acks"])]
    parts += [Int32.encode(asked["timeout"]), Int32.encode(len(asked["topics"]))]
    for topic, partitions in asked["topics"]:
        parts += [String("utf-8").encode(topic), Int32.encode(len(partitions))]
        for partition, batch in partitions:
            parts += [Int32.encode(partition), Int32.encode(len(batch)), batch]
    return b"".join(parts)


ProduceRequest_v7.encode = encoded

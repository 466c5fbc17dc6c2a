"""The batches that a commit sends: packed by the kernel where it was built, else by aiokafka's own builder.

`PackedBatch` is to aiokafka's producer what its `BatchBuilder` is; `tests/streams/test_engine_private_names.py` guards
what the producer asks of one. When they are sent is left to `streams.engine.transaction`.
"""

from collections.abc import Iterable
from struct import Struct
from time import time
from typing import TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from crc32c import crc32c

from streams.engine.records import Row

try:
    from streams.kernel import pack
except ImportError:  # no C compiler where Freshet was installed
    pack = None  # type: ignore[assignment]

BATCH_BYTES = 1_000_000
"""A batch is one record to the broker's limit (1,048,588 by default, checked by `streams.topics`)."""
_HEADER = Struct(">qiibIhiqqqhii")
_LENGTH_FROM, _CRC_FROM, _CRC = 12, 21, Struct(">I")
_TRANSACTIONAL = 0x10


class PackedBatch:
    """A whole batch of records, which waits for the number that its producer gives it."""

    def __init__(self, data: bytearray, records: int, at_ms: int) -> None:
        self._data, self._records, self._at_ms = data, records, at_ms

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        length, last = len(self._data) - _LENGTH_FROM, self._records - 1
        _HEADER.pack_into(
            self._data, 0, 0, length, -1, 2, 0, _TRANSACTIONAL, last, self._at_ms, self._at_ms,
            producer_id, producer_epoch, base_sequence, self._records,
        )  # fmt: skip
        _CRC.pack_into(self._data, 17, crc32c(memoryview(self._data)[_CRC_FROM:]))

    def _build(self) -> bytearray:
        return self._data

    def record_count(self) -> int:
        return self._records

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is closed from the start."""


Batch: TypeAlias = PackedBatch | BatchBuilder


def batches(producer: AIOKafkaProducer, rows: Iterable[Row]) -> list[Batch]:
    """Rows in their order, in as few batches as hold them. Raises `ValueError` for a row that none can hold."""
    at_ms = int(time() * 1000)
    if pack is not None:
        return [PackedBatch(data, records, at_ms) for data, records in pack(list(rows), BATCH_BYTES)]
    packed: list[Batch] = []
    batch = producer.create_batch()
    for key, value in rows:
        if batch.append(timestamp=at_ms, key=key, value=value) is None:
            packed.append(batch)
            batch = producer.create_batch()
            if batch.append(timestamp=at_ms, key=key, value=value) is None:
                raise ValueError(f"a record of {len(value or b'')} bytes does not fit into a batch of {BATCH_BYTES}")
    if batch.record_count():
        packed.append(batch)
    for full in packed:
        full.close()
    return packed

"""The batches that a commit sends: packed by the kernel where it was built, else by aiokafka's own builder.

`PackedBatch` is to aiokafka's producer what its `BatchBuilder` is; `tests/streams/test_engine_private_names.py` guards
what the producer asks of one, and of the request that takes it along. When they are sent is left to
`streams.engine.transaction`.
"""

from collections.abc import Iterable
from struct import Struct, error
from time import time
from typing import TypeAlias

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.types import Int16, Int32, String
from aiokafka.record.default_records import DefaultRecordBatch
from crc32c import crc32c

from streams.engine.records import ROW_OVERHEAD, Row, State
from streams.profiles import is_meta_key

try:
    from streams.kernel import fill as fill_packed
    from streams.kernel import pack
except ImportError:  # no C compiler where Freshet was installed
    fill_packed = pack = None  # type: ignore[assignment]

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


class BadBatch(RuntimeError):
    """Bytes that are not the batch that was written."""


def batches(rows: Iterable[Row]) -> list[Batch]:
    """Rows in their order, in as few batches as hold them. Raises `ValueError` for a row that none can hold."""
    at_ms = int(time() * 1000)
    if pack is not None:
        return [PackedBatch(data, records, at_ms) for data, records in pack(list(rows), BATCH_BYTES)]
    made: list[Batch] = []
    batch = _builder()
    for key, value in rows:
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


def packed(rows: Iterable[Row]) -> list[bytes | bytearray]:
    """The batches that no producer sends."""
    made = batches(rows)
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

Places = dict[bytes, int]
Own = dict[bytes, bytes | None]
"""The engine's own records; None deletes one."""


def fill(records: Iterable[State], held: dict[bytes, bytes], spilled: Places, own: Own) -> int:
    """Put records into these, in their order. By how many bytes that makes `held` larger."""
    growth = 0
    for key, row in records:
        if is_meta_key(key):
            own[key] = row
            continue
        before = held.get(key)
        if before is not None:
            growth -= len(before) + ROW_OVERHEAD
        elif spilled:
            spilled.pop(key, None)
        if row is not None:
            held[key] = row
            growth += len(row) + ROW_OVERHEAD
        elif before is not None:
            del held[key]
    return growth


def unpack_into(data: bytes, held: dict[bytes, bytes], spilled: Places, own: Own) -> int:
    """`fill` with the records of batches that lie one after the other. Raises `BadBatch`."""
    at = growth = 0
    try:
        while at < len(data):
            _, length, _, _, crc, *_ = _HEADER.unpack_from(data, at)
            end = at + _LENGTH_FROM + length
            whole = at + _HEADER.size <= end <= len(data)  # a hole of zeros has a checksum that fits
            if not whole or crc32c(memoryview(data)[at + _CRC_FROM : end]) != crc:
                raise BadBatch(f"the batch at byte {at} is not as it was written")
            if fill_packed is None:
                records = [(record.key, record.value) for record in DefaultRecordBatch(data[at:end])]
                growth += fill(records, held, spilled, own)
            else:
                growth += fill_packed(data, at + _HEADER.size, end, held, spilled, own, ROW_OVERHEAD)
            at = end
    except (error, ValueError) as damage:
        raise BadBatch(f"the batch at byte {at} is none: {damage}") from damage
    return growth

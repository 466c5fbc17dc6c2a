"""Rows out of the batches that carry them, into memory. How batches are made is left to `streams.engine.batches`."""

from struct import error

from aiokafka.record.default_records import DefaultRecordBatch
from crc32c import crc32c

from streams.engine.batches import CRC_FROM, HEADER, LENGTH_FROM
from streams.fold.records import Own
from streams.fold.rows import Heap, fill

try:
    from streams.kernel import fill as fill_packed
except ImportError:  # no C compiler where Freshet was installed
    fill_packed = None  # type: ignore[assignment]


class BadBatch(RuntimeError):
    """Bytes that are not the batch that was written."""


def unpack_into(data: bytes | memoryview, held: Heap, spilled: dict[bytes, int], own: Own) -> None:
    """`fill` with the records of batches that lie one after the other. Raises `BadBatch`."""
    data, at = memoryview(data), 0
    try:
        while at < len(data):
            _, length, _, _, crc, *_ = HEADER.unpack_from(data, at)
            end = at + LENGTH_FROM + length
            whole = at + HEADER.size <= end <= len(data)  # a hole of zeros has a checksum that fits
            if not whole or crc32c(data[at + CRC_FROM : end]) != crc:
                raise BadBatch(f"the batch at byte {at} is not as it was written")
            if fill_packed is None:
                records = [(record.key, record.value) for record in DefaultRecordBatch(bytes(data[at:end]))]
                fill(records, held, spilled, own)
            else:
                fill_packed(data, at + HEADER.size, end, held, spilled, own)
            at = end
    except (error, ValueError) as damage:
        raise BadBatch(f"the batch at byte {at} is none: {damage}") from damage

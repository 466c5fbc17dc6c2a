"""Rows out of the batches that carry them, into memory. How batches are made is left to `streams.engine.batches`."""

from collections.abc import Iterator

from aiokafka.record.default_records import DefaultRecordBatch
from crc32c import crc32c

from streams.engine.batches import CRC_FROM, HEADER, LENGTH_FROM
from streams.fold.records import Own
from streams.fold.rows import Heap, fill

try:
    from streams.kernel import fill as fill_packed
except ImportError:  # Python had no headers where Freshet was installed
    fill_packed = None  # type: ignore[assignment]


class BadBatch(RuntimeError):
    """Bytes that are not the batch that was written."""


def check(data: memoryview) -> None:
    """Raises `BadBatch` unless these are batches, one after the other, as they were written."""
    for start, end in _batches(data):
        if crc32c(data[start + CRC_FROM : end]) != HEADER.unpack_from(data, start)[4]:
            raise BadBatch(f"the batch at byte {start} is not as it was written")


def unpack_into(data: memoryview, held: Heap, spilled: dict[bytes, int], own: Own) -> None:
    """`fill` with the records of batches that passed `check`. Raises `BadBatch`."""
    for start, end in _batches(data):
        try:
            if fill_packed is None:
                records = [(record.key, record.value) for record in DefaultRecordBatch(bytes(data[start:end]))]
                fill(records, held, spilled, own)
            else:
                fill_packed(data, start + HEADER.size, end, held, spilled, own)
        except ValueError as damage:
            raise BadBatch(f"the batch at byte {start} is none: {damage}") from damage


def _batches(data: memoryview) -> Iterator[tuple[int, int]]:
    """Where each begins and ends."""
    at = 0
    while at < len(data):
        start, rest = at, len(data) - at
        at += LENGTH_FROM + HEADER.unpack_from(data, at)[1] if rest >= HEADER.size else 0
        if not start + HEADER.size <= at <= len(data):  # a hole of zeros has a checksum that fits
            raise BadBatch(f"there is no batch at byte {start}")
        yield start, at

"""The archive's files: `<archive_dir>/<topic>/p=<partition>/<first offset>-<last>.parquet`, exactly once by name.

A file appears whole or not at all, and its name says which offsets it holds, so whoever writes next goes on behind the
highest one. Reading from Kafka is left to `streams.sinks.archive`, folding what was archived to `streams.backfill`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")
_PARTITION = re.compile(r"p=(\d+)")
UNFINISHED = ".unfinished"

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
    ]
)
"""Key and value are the raw bytes; readers decode. `timestamp` is Kafka's."""


class Record(Protocol):
    """What is archived of a Kafka record. `timestamp` in milliseconds."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class ArchiveFile(NamedTuple):
    """One file and the offsets that it holds, both included."""

    first: int
    last: int
    path: Path


def folder(archive_dir: Path, topic: str, partition: int) -> Path:
    """Where a partition's files lie. `topic` is the name without prefix."""
    return archive_dir / topic / f"p={partition}"


def files(archive_dir: Path, topic: str) -> dict[int, list[ArchiveFile]]:
    """Partition -> its files in the order of their offsets."""
    found: dict[int, list[ArchiveFile]] = {}
    for place in sorted((archive_dir / topic).glob("p=*")):
        partition = _PARTITION.fullmatch(place.name)
        if partition is None:
            continue
        named = ((_NAME.fullmatch(path.name), path) for path in place.iterdir())
        found[int(partition[1])] = sorted(ArchiveFile(int(name[1]), int(name[2]), path) for name, path in named if name)
    return found


def write(archive_dir: Path, topic: str, partition: int, records: Sequence[Record]) -> Path:
    """Archive records, in the order of their offsets, as one file. It is on the disk when this returns."""
    place = folder(archive_dir, topic, partition)
    place.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        [
            pa.array([r.offset for r in records], pa.int64()),
            pa.array([r.key for r in records], pa.binary()),
            pa.array([r.value for r in records], pa.binary()),
            pa.array([r.timestamp for r in records], pa.timestamp("ms", tz="UTC")),
        ],
        schema=SCHEMA,
    )
    path = place / f"{records[0].offset:020}-{records[-1].offset:020}.parquet"
    unfinished = path.with_name(path.name + UNFINISHED)
    with unfinished.open("wb") as out:
        pq.write_table(table, out, compression="zstd", compression_level=1)
        out.flush()
        os.fsync(out.fileno())
    unfinished.rename(path)
    sync_folder(place)
    return path


def sync_folder(place: Path) -> None:
    """Make the names in a folder, and the folder's own name, last through a crash of the machine."""
    for path in (place, place.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(archive_dir: Path) -> int:
    """Remove what a crash left half written. Only for the one process that writes. Returns how many."""
    left = list(archive_dir.glob(f"*/p=*/*{UNFINISHED}"))
    for path in left:
        path.unlink()
    return len(left)


def newest(path: Path) -> int:
    """When Kafka took the newest record of a file, in microseconds, by the file's own statistics."""
    metadata = pq.read_metadata(path)
    column = SCHEMA.get_field_index("timestamp")
    groups = (metadata.row_group(n).column(column).statistics for n in range(metadata.num_row_groups))
    return max(int(group.max.timestamp() * 1_000_000) for group in groups)


def read(
    file: ArchiveFile, after: int = -1, before: int | None = None
) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of a file's records with `after` < offset < `before`."""
    for batch in pq.ParquetFile(file.path).iter_batches(batch_size=8192, columns=["offset", "key", "value"]):
        offsets, keys, values = (batch.column(n).to_pylist() for n in range(3))
        for record in zip(offsets, keys, values, strict=True):
            if record[0] > after and (before is None or record[0] < before):
                yield record

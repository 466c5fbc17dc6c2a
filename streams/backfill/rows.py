"""Writes rows of the offline store: Parquet files of bounded size, in the order in which rows come."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.offline import schema
from streams.events import Micros
from streams.profiles import Profile

Tell = Callable[[int], None]
"""Told how many events were done since it was last told."""
FILE_ROWS = 1_000_000
GROUP_ROWS = 50_000
GROUP_BYTES = 32 * 1024 * 1024
"""A row group is written at this many rows or bytes of states: what a backfill holds in memory at a time."""


class BackfillError(RuntimeError):
    """The archive cannot be folded. Its text says what is missing, and what to do."""


class RowWriter:
    """Rows of one profile into files `<name>-<n>.parquet` in a folder. A context; without an error all is written."""

    def __init__(self, folder: Path, profile: Profile, name: str) -> None:
        self._folder, self._name, self._schema = folder, name, schema(profile)
        self._columns: tuple[list[str], list[Micros], list[Micros], list[bytes], list[int]] = ([], [], [], [], [])
        self._file: pq.ParquetWriter | None = None
        self._bytes, self._in_file = 0, 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_group()
        if self._file is not None:
            self._file.close()

    def add(self, key: str, at: Micros, created: Micros, state: bytes, version: int) -> None:
        """One row: the state of `key` since the instant `at`, known since `created`."""
        keys, ats, createds, states, versions = self._columns
        keys.append(key)
        ats.append(at)
        createds.append(created)
        states.append(state)
        versions.append(version)
        self._bytes += len(state)
        if len(keys) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if not self._columns[0]:
            return
        arrays = [pa.array(values, field.type) for values, field in zip(self._columns, self._schema, strict=True)]
        table = pa.table(arrays, schema=self._schema)
        if self._file is None:
            path = self._folder / f"{self._name}-{self.rows:012}.parquet"
            self._file = pq.ParquetWriter(
                path, self._schema, compression="zstd", compression_level=1, use_dictionary=False
            )
        self._file.write_table(table)
        self.rows += len(table)
        self._in_file += len(table)
        if self._in_file >= FILE_ROWS:
            self._file.close()
            self._file, self._in_file = None, 0
        self._bytes = 0
        for column in self._columns:
            column.clear()

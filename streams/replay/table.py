"""Any CSV or Parquet file as a source, by a mapping from the fields of an event to the file's columns."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from streams.catalogue import Item, read_items
from streams.replay import files
from streams.replay.interactions import BadSource, Ids, Interactions, Ints

NEEDED = ("user_id", "item_id", "event_time")
OPTIONAL = ("type", "value", "session_id", "categories", "event_id")
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class Table:
    """A CSV or Parquet file.

    `columns` maps event fields to column names; a field that it does not name is looked for by its own name.

    Numeric times are in `time_unit` ("s", "ms" or "us"), text is RFC 3339 (UTC where it names no zone). Rows without a
    type column are of `event_type`. Categories within a cell are separated by `|`. `items` is a catalogue file as
    `streams.catalogue.read_items` takes it. Raises `BadSource`.
    """

    name = "table"
    repeats = True

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str],
        *,
        time_unit: str = "s",
        event_type: str = "view",
        items: Path | None = None,
        prefix: str = "t",
    ) -> None:
        unknown = columns.keys() - {*NEEDED, *OPTIONAL}
        if unknown:
            raise BadSource(
                f"no event field is called {sorted(unknown)[0]!r}; there are {', '.join((*NEEDED, *OPTIONAL))}"
            )
        if time_unit not in UNITS:
            raise BadSource(f"time unit {time_unit!r} is none of {', '.join(UNITS)}")
        self._path, self._items = files.existing(path), files.existing(items) if items else None
        self._columns, self._unit, self._type, self.prefix = dict(columns), time_unit, event_type, prefix

    def fingerprint(self) -> str:
        paths = [self._path, *([self._items] if self._items else [])]
        return files.fingerprint(paths, self.name, sorted(self._columns.items()), self._unit, self._type, self.prefix)

    def items(self) -> Iterable[Item]:
        known = {item.item_id: item for item in read_items(self._items)} if self._items else {}
        return files.with_the_rest(known, self.interactions().items.names)

    def interactions(self) -> Interactions:
        return self._interactions

    @cached_property
    def _interactions(self) -> Interactions:
        table = self._read()
        have = {
            field: name for field in (*NEEDED, *OPTIONAL) if (name := self._columns.get(field, field)) in table.columns
        }
        missing = [self._columns.get(f, f) for f in (*NEEDED, *self._columns) if f not in have]
        if missing:
            raise BadSource(f"{self._path} has no column {missing[0]!r}; it has {', '.join(table.columns)}")
        column = {field: table[name] for field, name in have.items()}
        texts = {
            f: column[f].cast(pl.String).to_list() for f in ("session_id", "categories", "event_id") if f in column
        }
        if "event_id" in texts and column["event_id"].n_unique() != len(table):
            raise BadSource(
                f"{self._path}: event ids are not unique; leave the mapping of event_id away to have ids made"
            )
        return Interactions(
            users=Ids.of(column["user_id"]),
            items=Ids.of(column["item_id"]),
            types=Ids.of(column["type"]) if "type" in column else Ids.constant(self._type, len(table)),
            times=self._times(column["event_time"]),
            values=column["value"].cast(pl.Float64).fill_null(np.nan).to_numpy() if "value" in column else None,
            sessions=texts.get("session_id"),
            categories=[tuple(c for c in (t or "").split("|") if c) for t in texts["categories"]]
            if "categories" in texts
            else None,
            event_ids=texts.get("event_id"),
        )

    def _read(self) -> pl.DataFrame:
        try:
            if self._path.suffix == ".parquet":
                return pl.read_parquet(self._path)
            return pl.read_csv(self._path, infer_schema_length=10_000)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadSource(
                f"{self._path} cannot be read as {'Parquet' if self._path.suffix == '.parquet' else 'CSV'}: {error}"
            ) from None

    def _times(self, column: pl.Series) -> Ints:
        try:
            if column.dtype.is_numeric():
                scaled = (
                    column.cast(pl.Float64) * UNITS[self._unit]
                    if column.dtype.is_float()
                    else column.cast(pl.Int64) * UNITS[self._unit]
                )
                micros = scaled.round(0).cast(pl.Int64) if column.dtype.is_float() else scaled
            elif column.dtype == pl.String:
                micros = column.str.to_datetime(time_unit="us", time_zone="UTC").dt.epoch("us")
            else:
                micros = column.cast(
                    pl.Datetime("us", column.dtype.time_zone if isinstance(column.dtype, pl.Datetime) else None)
                ).dt.epoch("us")
        except pl.exceptions.PolarsError as error:
            raise BadSource(f"{self._path}, column {column.name!r}: no times: {error}") from None
        if micros.null_count():
            raise BadSource(f"{self._path}, column {column.name!r}: {micros.null_count()} rows have no time")
        return micros.to_numpy().astype(np.int64)

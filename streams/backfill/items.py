"""Item rows of the backfill: one for each closed tile in which an item changed, holding what was known when it closed.

Events of one item come from all partitions. So the pass over users sets each applied event aside with the tile by which
it counts, DuckDB sorts them (on disk where they are many), and the items are then folded one after the other.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.features import item
from streams.aggregates import TILE
from streams.backfill.rows import RowWriter, Tell
from streams.events import LATEST, Event, Micros, decode, encode
from streams.profiles import State
from streams.tiled import CLOSING

BATCH = 50_000
MEMORY = "1GB"
"""What the sort may hold in memory; the rest goes to disk."""
ASIDE = "aside"
_SCHEMA = pa.schema([("item_id", pa.string()), ("tile", pa.int64()), ("event", pa.binary())])


def counts_by(event: Event) -> Micros:
    """The end of the first tile whose closed state holds the event: it happened before, and arrived until it closed."""
    return max(event.event_time // TILE, (event.arrival - CLOSING) // TILE) * TILE + TILE


class Aside:
    """Applied events of one partition, set aside in a file for `fold`. A context."""

    def __init__(self, folder: Path, partition: int) -> None:
        path = folder / f"{ASIDE}-{partition}"
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="lz4", use_dictionary=False)
        self._columns: tuple[list[str], list[Micros], list[bytes]] = ([], [], [])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()
        self._file.close()

    def add(self, event: Event) -> None:
        """In any order."""
        ids, tiles, events = self._columns
        ids.append(event.item_id)
        tiles.append(counts_by(event))
        events.append(encode(event))
        if len(ids) >= BATCH:
            self._write()

    def _write(self) -> None:
        self._file.write_table(
            pa.table([pa.array(c, f.type) for c, f in zip(self._columns, _SCHEMA, strict=True)], schema=_SCHEMA)
        )
        for column in self._columns:
            column.clear()


def clear(folder: Path) -> None:
    """Remove what was set aside."""
    for path in folder.glob(f"{ASIDE}-*"):
        path.unlink()


def fold(folder: Path, share: int, shares: int, closed_by: Micros, tell: Tell) -> int:
    """Write the rows of all tiles that were closed at `closed_by`, of one share of the items. How many they are."""
    current: str | None = None
    state, tile = item.new(), -1
    with (
        RowWriter(folder, item, f"item-{share}") as writer,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(folder / f".sort-{share}")}) as database,
    ):
        rows = database.execute(
            "SELECT item_id, tile, event FROM read_parquet($files) "
            "WHERE hash(item_id) % $shares = $share AND tile <= $last ORDER BY item_id, tile",
            {"files": f"{folder}/{ASIDE}-*", "shares": shares, "share": share, "last": closed_by - CLOSING},
        ).to_arrow_reader(BATCH)
        for batch in rows:
            for item_id, end, event in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if item_id != current or end != tile:
                    if current is not None:
                        _close(writer, current, state, tile)
                    state = state if item_id == current else item.new()
                    current, tile = item_id, end
                item.update(state, decode(event, LATEST))
            tell(len(batch))
        if current is not None:
            _close(writer, current, state, tile)
    return writer.rows


def _close(writer: RowWriter, item_id: str, state: State, tile: Micros) -> None:
    """A row has no version here: those of item rows are offsets in `item-deltas`, which a backfill does not see."""
    writer.add(item_id, tile + CLOSING, state.created, item.encode(state), state.version)

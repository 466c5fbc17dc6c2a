"""The archive and the offline store, read by DuckDB, against the topics and the oracle."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from feature_repo import offline
from feature_repo.features import item, user
from freshet.settings import Settings
from monitoring.columns import compare
from monitoring.oracle import CLOSING_US, Ask, Declared, Oracle
from monitoring.quiet import Progress
from monitoring.raw import Record
from monitoring.report import Check
from streams.topics import EVENTS

TILES_MOST = 20_000
"""Tile states that are read and compared, beside the last of every item: chosen by hash, the same ones every time."""
LOOK_AT_ONCE = 2_000


def archived_equal(settings: Settings, records: Mapping[int, Sequence[Record]]) -> Check:
    """Every record of the topic is in the archive once, with its bytes."""
    check = Check("archive: every event, byte for byte")
    check.compared = sum(len(found) for found in records.values())
    raw = pa.table(
        {
            "partition": pa.array([p for p, found in records.items() for _ in found], pa.int64()),
            "offset": pa.array([r[0] for found in records.values() for r in found], pa.int64()),
            "key": pa.array([r[1] for found in records.values() for r in found], pa.binary()),
            "value": pa.array([r[2] for found in records.values() for r in found], pa.binary()),
        }
    )
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        db.register("topic", raw)
        archived = f"{settings.archive_dir / EVENTS}/p=*/*.parquet"
        for what, sql in (
            ("not in the archive", 'SELECT * FROM topic EXCEPT ALL SELECT p, "offset", key, value FROM archived'),
            (
                "in the archive only, or twice",
                'SELECT p, "offset", key, value FROM archived EXCEPT ALL SELECT * FROM topic',
            ),
        ):
            found = db.execute(
                f"WITH archived AS (SELECT * FROM read_parquet('{archived}', hive_partitioning = true)) {sql}"
            ).fetchall()
            if found:
                check.differ(
                    f"{len(found)} events {what}, e.g. partition {found[0][0]} offset {found[0][1]}", len(found)
                )
    return check


def users_equal(
    settings: Settings, oracle: Oracle, rows: Mapping[str, bytes], n_rows: int, progress: Progress
) -> Check:
    """A row for each applied event, and the last one of each user equal to the topic's, byte for byte."""
    check = Check("offline store: a row for every event, the last state of every user byte for byte")
    files = offline.pattern(settings, user)
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        found = db.execute(f"SELECT user_id, version FROM read_parquet('{files}')").fetchall()
        if len(found) != n_rows:
            check.differ(f"{len(found)} rows, the backfill wrote {n_rows}")
        if len(set(found)) != len(found):
            check.differ(f"{len(found) - len(set(found))} events have two rows", len(found) - len(set(found)))
        check.same_set(oracle.applied(), found, "events without a row, or rows without an event,")
        last = db.execute(f"SELECT user_id, arg_max(state, version) FROM read_parquet('{files}') GROUP BY 1").fetchall()
    for user_id, state in last:
        if rows.get(user_id) != state:
            check.differ(f"user {user_id!r}: another state in the offline store than in the topic")
    progress("comparing users in the offline store", len(last), len(rows))
    return check


def items_equal(
    settings: Settings, oracle: Oracle, features: Sequence[Declared], closed_by: int, progress: Progress
) -> Check:
    """A row for each tile in which an item changed, closed at `closed_by`; values of the last, and of many others."""
    check = Check("offline store: a row for every closed tile, every column of every item")
    files = offline.pattern(settings, item)
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        there = db.execute(
            f"SELECT item_id, epoch_us(event_timestamp) - {CLOSING_US} FROM read_parquet('{files}')"
        ).fetchall()
        check.same_set(oracle.tiles(closed_by), there, "tiles")
        if len(set(there)) != len(there):
            check.differ(f"{len(there) - len(set(there))} tiles have two rows")
        check.compared = 0
        rows = db.execute(
            f"""WITH row AS (
                SELECT item_id, epoch_us(event_timestamp) - {CLOSING_US} AS tile, item_state AS state
                FROM read_parquet('{files}'))
            SELECT item_id, tile, state FROM row QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY tile DESC) = 1
            UNION ALL (SELECT item_id, tile, state FROM row ORDER BY hash(item_id || tile) LIMIT {TILES_MOST})"""
        ).fetchall()
    for begin in range(0, len(rows), LOOK_AT_ONCE):
        some = rows[begin : begin + LOOK_AT_ONCE]
        asks = [Ask(item_id, tile, before=tile, known=tile) for item_id, tile, _ in some]
        for ask, want, (_, _, state) in zip(asks, oracle.values(item.key, features, asks), some, strict=True):
            compare(item, check, ask.key, want, item.values_at_tile(state, ask.at), ask.at)
        progress("comparing items in the offline store", begin + len(some), len(rows))
    return check

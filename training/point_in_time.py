"""The point-in-time join: for a key and an instant, the newest state that had happened and was known by then.

It gives what Feast's own join gives with `filter_by_created_timestamp`, and `training.datasets.audit` holds the two
against each other at every training. Feast's pairs each label with all earlier states of its key before it picks the
newest: 100,000 labels took 14.7 GB there. Here DuckDB's ASOF join finds which state, and only that one is read.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import offline
from feature_repo.features import item, user
from feature_repo.layout import STATE
from freshet.settings import Settings
from streams.aggregates import Dtype
from streams.events import Micros
from streams.profiles import Profile

CHUNK = 125_000
"""Labels whose states are found at a time; each chunk reads all states once."""
SLICE = 10_000
"""Labels whose values are in memory at a time: as Python objects they are ten times as large as their states."""
MEMORY = "500MB"
"""What DuckDB may hold in a join; the rest goes to disk."""
AT = "event_timestamp"
TYPES: dict[Dtype, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string[]": pa.list_(pa.string()),
    "float64[]": pa.list_(pa.float64()),
}
_JOIN = """
WITH found AS (
    SELECT n, asked.key, happened FROM asked ASOF JOIN (
        SELECT {key} AS key, {stamp} AS happened, greatest(epoch_us({stamp}), epoch_us({created})) AS known
        FROM read_parquet($files)
    ) AS states ON asked.key = states.key AND asked.instant >= states.known)
SELECT n, {state} FROM read_parquet($files) AS states
JOIN found ON states.{key} = found.key AND states.{stamp} = found.happened
"""


class BadLabels(ValueError):
    """A file of labels that cannot be joined. Its text says what is wrong."""


def database(settings: Settings, memory: str, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An empty one that holds so much in memory and puts the rest beside the offline store, apart from others."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory,
        "temp_directory": str(settings.offline_dir / f".spilled-{uuid4().hex[:12]}"),
    }
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(config=config)


def states(
    settings: Settings, profile: Profile, keys: Sequence[str], instants: Sequence[Micros], threads: int | None = None
) -> list[bytes | None]:
    """The state of each key as of each instant; None where there was none yet. In their order."""
    asked = pa.table(
        {"n": range(len(keys)), "key": pa.array(keys, pa.string()), "instant": pa.array(instants, pa.int64())}
    )
    found: list[bytes | None] = [None] * len(keys)
    with database(settings, MEMORY, threads) as db:
        db.register("given", asked)
        db.execute("CREATE TEMP TABLE asked AS FROM given")  # of a table whose size it does not know it makes a loop
        query = _JOIN.format(
            key=profile.key,
            state=STATE[profile.name],
            stamp=offline.EVENT_TIMESTAMP,
            created=offline.CREATED_TIMESTAMP,
        )
        for batch in db.execute(query, {"files": offline.pattern(settings, profile)}).to_arrow_reader(10_000):
            for n, state in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                found[n] = state
    return found


def schema(labels: pa.Schema) -> pa.Schema:
    """That of the training set: the labels' own columns, then `user__` and `item__` columns as Feast names them."""
    features = [
        pa.field(f"{profile.name}__{c.name}", TYPES[c.dtype]) for profile in (user, item) for c in profile.columns
    ]
    return pa.schema([*labels, *features])


def joined(settings: Settings, labels: pa.Table, threads: int | None = None) -> Iterator[pa.Table]:
    """Every column of users and items as it was known at each label's `event_timestamp`, beside the labels; in slices
    of theirs.
    """
    instants = labels[AT].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_pylist()
    found = [(of, states(settings, of, labels[of.key].to_pylist(), instants, threads)) for of in (user, item)]
    for first in range(0, len(instants), SLICE):
        here = slice(first, first + SLICE)
        columns = list(labels[here].columns)
        for profile, rows in found:
            values = [profile.values(row, at) for row, at in zip(rows[here], instants[here], strict=True)]
            columns += [pa.array([row[c.name] for row in values], TYPES[c.dtype]) for c in profile.columns]
        yield pa.table(columns, schema=schema(labels.schema))


def training_set(
    settings: Settings, labels: Path, out: Path, progress: Callable[[str, int, int | None], None] | None = None
) -> int:
    """Join a Parquet file of labels (`user_id`, `item_id`, `event_timestamp`, and any others) into a new folder.

    Its files hold the labels in their order, file after file; there is a process for each core. Returns how many labels
    there are. Raises `BadLabels`.
    """
    total = _checked(labels)
    if out.exists():
        raise BadLabels(f"{out} exists already: remove it, or give another folder")
    bounds = [*range(0, total, CHUNK), total]
    unfinished = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    cores = len(os.sched_getaffinity(0))
    try:
        with ProcessPoolExecutor(min(cores, len(bounds) - 1), mp_context=get_context("spawn")) as processes:
            share = partial(_share, settings, labels, unfinished)
            for done in processes.map(share, bounds[:-1], bounds[1:]):
                if progress is not None:
                    progress("join labels", done, total)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # there is none where all went well
    return total


def _checked(labels: Path) -> int:
    """How many labels the file holds. Raises `BadLabels`."""
    try:
        file = pq.ParquetFile(labels)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadLabels(f"{labels} cannot be read as Parquet: {error}") from None
    for name in (user.key, item.key, AT):
        if name not in file.schema_arrow.names:
            raise BadLabels(f"{labels} has no column {name!r}; it needs {user.key}, {item.key} and {AT}")
    if taken := [name for name in file.schema_arrow.names if name.startswith((f"{user.name}__", f"{item.name}__"))]:
        raise BadLabels(f"{labels} has a column {taken[0]!r} already: give the labels without features")
    if not pa.types.is_timestamp(file.schema_arrow.field(AT).type):
        raise BadLabels(f"{labels}: {AT} is {file.schema_arrow.field(AT).type}; it must be a timestamp, in UTC")
    if not file.metadata.num_rows:
        raise BadLabels(f"{labels} holds no label")
    return int(file.metadata.num_rows)


def _share(settings: Settings, labels: Path, folder: Path, first: int, stop: int) -> int:
    """Join the labels from `first` up to `stop` into a file of their own. Returns `stop`."""
    some = pq.read_table(labels, memory_map=True).slice(first, stop - first)
    for name in (user.key, item.key, AT):
        if some[name].null_count:
            raise BadLabels(f"{labels}: {name} is empty in {some[name].null_count} of rows {first + 1} to {stop}")
    with pq.ParquetWriter(folder / f"{first:012}.parquet", schema(some.schema), compression="zstd") as file:
        for part in joined(settings, some, threads=1):
            file.write_table(part)
    return stop

"""Where the offline store lies, and what its files look like. Filling it is left to `streams.backfill`.

A profile's rows lie under its fingerprint, so a changed declaration never reads states that it would misread.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from freshet.settings import Settings
from streams.profiles import Profile

EVENT_TIMESTAMP, CREATED_TIMESTAMP = "event_timestamp", "created_timestamp"
BOOTSTRAP = "0-bootstrap.parquet"
"""A file without rows: a glob that matches no file is an error in DuckDB, and a new deployment has no rows yet."""


def folder(settings: Settings, profile: Profile) -> Path:
    """The folder of a profile's rows. A backfill makes it a link to the rows that it wrote."""
    return settings.offline_dir / profile.name / profile.fingerprint


def pattern(settings: Settings, profile: Profile) -> str:
    """A glob of a profile's files."""
    return f"{folder(settings, profile)}/**/*.parquet"


def schema(profile: Profile) -> pa.Schema:
    """Microseconds with a zone: with nanoseconds Feast's `materialize` fails."""
    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            pa.field(profile.key, pa.string(), nullable=False),
            pa.field(EVENT_TIMESTAMP, stamp, nullable=False),
            pa.field(CREATED_TIMESTAMP, stamp, nullable=False),
            pa.field("state", pa.binary(), nullable=False),
            pa.field("version", pa.int64(), nullable=False),
        ]
    )


def bootstrap(settings: Settings, profile: Profile) -> bool:
    """Make the folder with its file without rows. False when there was one."""
    made = folder(settings, profile)
    if made.exists():
        return False
    made.mkdir(parents=True)
    pq.write_table(schema(profile).empty_table(), made / BOOTSTRAP)
    return True

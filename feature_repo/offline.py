"""Where the offline store lies, and what its files look like. Filling it is left to `streams.backfill`.

A profile's rows lie under its fingerprint, so a changed declaration never reads states that it would misread.
"""

import os
import shutil
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.layout import STATE, VERSION
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
            pa.field(STATE[profile.name], pa.binary(), nullable=False),
            pa.field(VERSION[profile.name], pa.int64(), nullable=False),
        ]
    )


def bootstrap(settings: Settings, profile: Profile) -> bool:
    """Make a profile's folder with a file without rows. False when it was there."""
    if folder(settings, profile).exists():
        return False
    made = unfinished(settings, profile)
    finish(made, profile)
    publish(settings, profile, made)
    return True


def unfinished(settings: Settings, profile: Profile) -> Path:
    """A new folder to fill with files; nobody reads it before `publish`."""
    made = folder(settings, profile).with_name(f".{profile.fingerprint}-{uuid4().hex[:12]}")
    made.mkdir(parents=True)
    return made


def finish(filled: Path, profile: Profile) -> None:
    """Put the file without rows into a folder."""
    pq.write_table(schema(profile).empty_table(), filled / BOOTSTRAP)


def publish(settings: Settings, profile: Profile, filled: Path) -> None:
    """Make `filled` the profile's rows, in one step: readers find the old files or the new ones, never a mixture."""
    link = folder(settings, profile)
    renamed = filled.with_name(filled.name + ".link")
    renamed.symlink_to(filled.name)
    renamed.replace(link)
    for stale in link.parent.glob(f".{profile.fingerprint}-*"):  # also what a killed backfill has left
        if stale.is_symlink():
            stale.unlink()
        elif stale != filled:
            shutil.rmtree(stale)
    handle = os.open(link.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

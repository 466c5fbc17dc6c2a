"""One run of the backfill: from the archived events to user rows and item rows, replacing those of the run before.

Runs the worker's `UserFold`, in the order of the partitions' offsets, so the row at a version equals the one that the
worker made, byte for byte. Always a full run: a changed declaration changes every row.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

from feature_repo import offline
from feature_repo.features import item, user
from freshet.settings import Settings
from streams.backfill.items import Aside
from streams.backfill.rows import RowWriter
from streams.engine.fold import Gap, UserFold
from streams.events import Event
from streams.profiles import State
from streams.sinks import files
from streams.sinks.archive import archive_until_now
from streams.sinks.files import ArchiveFile
from streams.topics import EVENTS

Progress = Callable[[str, int, int | None], None]
"""(label, done, total)"""
FOLD_AT_ONCE = 4_096
REST_EVERY = 100_000
"""After this many events the states that were touched are put back as rows: decoded ones take ten times the memory."""

log = logging.getLogger(__name__)


class BackfillError(RuntimeError):
    """The archive cannot be folded. Its text says what is missing, and what to do."""


@dataclass(frozen=True)
class BackfillReport:
    """What a run has done. `offsets`: the first offset of each partition of `events` that is not in it."""

    user_rows: int
    item_rows: int
    applied: int
    late: int
    duplicate: int
    rejected: int
    offsets: dict[int, int]
    seconds: float


def backfill(
    settings: Settings,
    until: Mapping[int, int] | None = None,
    progress: Progress | None = None,
    *,
    archived_only: bool = False,
) -> BackfillReport:
    """Fill the offline store from the archive; readers see the old rows until all new ones are there.

    Without `until` (partition -> first offset to leave out), everything that is in Kafka now is archived first, unless
    `archived_only`. Not to be called inside an event loop. Raises `BackfillError` and `ArchiveError`.
    """
    begun = time.monotonic()
    if until is None and not archived_only:
        asyncio.run(archive_until_now(settings))
    now = time.time_ns() // 1_000
    archived = files.files(settings.archive_dir, EVENTS)
    ends = _checked(settings, archived, until)
    with _alone(settings), ExitStack() as cleaning:
        folders = [offline.unfinished(settings, profile) for profile in (user, item)]
        for folder in folders:
            cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
        run = _Run(settings, ends, progress or (lambda label, done, total: None))
        aside = Aside(folders[1] / "aside.unsorted")
        with RowWriter(folders[0], user, "user") as users:
            for partition, found in archived.items():
                run.fold(partition, found, users, aside)
        with RowWriter(folders[1], item, "item") as items:
            total = aside.events
            aside.fold(items, now, lambda done: run.progress("backfill: item tiles", done, total))
        (folders[1] / "aside.unsorted").unlink()
        for folder, profile in zip(folders, (user, item), strict=True):
            offline.finish(folder, profile)
            offline.publish(settings, profile, folder)
        cleaning.pop_all()
    counts = {
        name: sum(getattr(fold.meta, name) for fold in run.folds)
        for name in ("applied", "late", "duplicate", "rejected")
    }
    return BackfillReport(users.rows, items.rows, **counts, offsets=ends, seconds=time.monotonic() - begun)


class _Run:
    """The pass over the partitions."""

    def __init__(self, settings: Settings, ends: dict[int, int], progress: Progress) -> None:
        self.settings, self.ends, self.progress = settings, ends, progress
        self.folds: list[UserFold] = []
        self._done = 0

    def fold(self, partition: int, archived: list[ArchiveFile], writer: RowWriter, aside: Aside) -> None:
        """Fold one partition's files up to its end."""
        encode, add, set_aside = user.encode, writer.add, aside.add

        def applied(event: Event, state: State) -> None:
            add(event.user_id, state.event_time, state.created, encode(state), state.version)
            set_aside(event)

        fold = UserFold.of(self.settings, partition, applied)
        self.folds.append(fold)
        total, rested = sum(self.ends.values()), 0
        for some in _in_chunks(archived, self.ends[partition]):
            try:
                fold.fold(some)
            except Gap as error:
                raise BackfillError(f"the archive has a gap inside a file: {error}") from error
            self._done, rested = self._done + len(some), rested + len(some)
            self.progress("backfill: user states", self._done, total)
            if rested >= REST_EVERY:
                fold.snapshot()
                rested = 0
        fold.cold.clear()
        fold.hot.clear()


def _in_chunks(archived: list[ArchiveFile], end: int) -> Iterator[list[tuple[int, bytes | None, bytes | None]]]:
    some: list[tuple[int, bytes | None, bytes | None]] = []
    for file in archived:
        if file.first >= end:
            break
        for record in files.read(file, before=end):
            some.append(record)
            if len(some) >= FOLD_AT_ONCE:
                yield some
                some = []
    if some:
        yield some


def _checked(
    settings: Settings, archived: dict[int, list[ArchiveFile]], until: Mapping[int, int] | None
) -> dict[int, int]:
    """Partition -> first offset to leave out. Raises `BackfillError` where offsets are missing."""
    where = settings.archive_dir / EVENTS
    for partition, found in archived.items():
        if found and found[0].first > 0:
            log.warning(
                "the archive of %s partition %d begins at offset %d; what came before is not in the rows",
                EVENTS,
                partition,
                found[0].first,
            )
        for before, after in pairwise(found):
            if after.first != before.last + 1:
                raise BackfillError(
                    f"{where} misses offsets {before.last + 1} to {after.first - 1} of partition {partition}"
                    if after.first > before.last
                    else f"two files in {where} hold offset {after.first} of partition {partition}: "
                    f"{before.path.name} and {after.path.name}"
                )
    ends = {partition: found[-1].last + 1 for partition, found in archived.items() if found}
    if not ends:
        raise BackfillError(f"no events are archived in {where}: is the archive sink running? Has anything been sent?")
    if until is None:
        return ends
    for partition, end in until.items():
        if end > ends.get(partition, 0):
            raise BackfillError(
                f"partition {partition} is archived up to offset {ends.get(partition, 0)}, not {end}: "
                "run `python -m streams.sinks archive --until-now`"
            )
    return {partition: min(until.get(partition, 0), end) for partition, end in ends.items()}


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One backfill at a time."""
    settings.offline_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(settings.offline_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackfillError(f"another backfill into {settings.offline_dir} runs; wait for it") from None
    finally:
        os.close(handle)

"""One run of the backfill: from the archived events to user rows and item rows, replacing those of the run before.

Always a full run: a changed declaration changes every row. What a row holds is left to `users` and `items`; here is
what makes it safe (one run at a time, no gap, all or nothing) and quick (a process for each core).
"""

import asyncio
import fcntl
import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from feature_repo import offline
from feature_repo.features import item, user
from freshet.settings import Settings
from streams.backfill import items, users
from streams.backfill.rows import BackfillError, Tell
from streams.events import Micros
from streams.sinks import files
from streams.sinks.archive import archive_until_now
from streams.sinks.files import ArchiveFile
from streams.topics import EVENTS

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]
"""(label, done, total)"""
SMALL = 20_000
"""Fewer events than this are folded in this process."""
TELL_S = 0.2

log = logging.getLogger(__name__)
_done: "Synchronized[int]"
"""Events that the jobs have done; all processes share it."""


@dataclass(frozen=True)
class BackfillReport:
    """What a run has done. `offsets`: the first offset of each partition of `events` that is not in it.

    The rows of items are those of the tiles that were closed at `closed_by`.
    """

    user_rows: int
    item_rows: int
    applied: int
    late: int
    duplicate: int
    rejected: int
    offsets: dict[int, int]
    closed_by: Micros
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
        folds = [
            partial(users.fold, settings, partition, found, ends[partition], folders[0], folders[1])
            for partition, found in archived.items()
            if found
        ]
        tell = progress or (lambda label, done, total: None)
        total = sum(ends.values())
        tallies = _at_once(folds, total, lambda done: tell("backfill: user states", done, total))
        applied = sum(tally.applied for tally in tallies)
        shares = _workers(applied)
        closes = [partial(items.fold, folders[1], share, shares, now) for share in range(shares)]
        closed = _at_once(closes, applied, lambda done: tell("backfill: item tiles", done, applied))
        items.clear(folders[1])
        for folder, profile in zip(folders, (user, item), strict=True):
            offline.finish(folder, profile)
            offline.publish(settings, profile, folder)
        cleaning.pop_all()
    counts = {
        name: sum(getattr(tally, name) for tally in tallies) for name in ("applied", "late", "duplicate", "rejected")
    }
    seconds = time.monotonic() - begun
    return BackfillReport(applied, sum(closed), **counts, offsets=ends, closed_by=now, seconds=seconds)


def _workers(events: int) -> int:
    """Processes that are worth their start, which costs as much as folding some ten thousand events."""
    return 1 if events < SMALL else len(os.sched_getaffinity(0))


def _at_once(jobs: Sequence[Callable[[Tell], T]], events: int, progress: Callable[[int], None]) -> list[T]:
    """The jobs' results, in their order. Each tells how many events it has done since it last told."""
    workers, context = min(_workers(events), len(jobs)), get_context("spawn")
    done = context.Value("q", 0)
    pool: Executor = ThreadPoolExecutor(1)
    if workers > 1:
        pool = ProcessPoolExecutor(workers, context, _begin, (done,))
    else:
        _share(done)
    with pool:
        running = [pool.submit(_run, job) for job in jobs]
        while wait(running, TELL_S, FIRST_EXCEPTION).not_done and not any(f.done() and f.exception() for f in running):
            progress(done.value)
        results = [future.result() for future in running]
    progress(events)
    return results


def _begin(done: "Synchronized[int]") -> None:
    gc.set_threshold(100_000, 50, 100)  # as in the worker: folding makes many short-lived objects and no cycles
    _share(done)


def _share(done: "Synchronized[int]") -> None:
    global _done
    _done = done


def _run(job: Callable[[Tell], T]) -> T:
    return job(_tell)


def _tell(events: int) -> None:
    with _done.get_lock():
        _done.value += events


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

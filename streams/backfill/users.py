"""User rows of the backfill: the state after each applied event, at the version that is the event's offset.

Runs the worker's `UserFold` over one partition's files, in the order of their offsets, so a row equals the one that the
worker made at that version, byte for byte.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_repo.features import user
from freshet.settings import Settings
from streams.backfill.items import Aside
from streams.backfill.rows import BackfillError, RowWriter, Tell
from streams.events import Event, decode
from streams.fold.records import Meta
from streams.fold.rows import Rows
from streams.fold.states import Gap
from streams.fold.users import UserFold
from streams.profiles import header
from streams.sinks import files
from streams.sinks.files import ArchiveFile

FOLD_AT_ONCE = 4_096


def fold(
    settings: Settings,
    partition: int,
    archived: Sequence[ArchiveFile],
    end: int,
    folder: Path,
    items_folder: Path,
    tell: Tell,
) -> Meta:
    """Write the rows of a partition's events before offset `end`; set the events aside for the items.

    The engine's counts of what was applied and what was not. Raises `BackfillError` for a gap inside a file.
    """
    fold = UserFold.of(settings, partition)
    with RowWriter(folder, user, f"user-{partition}") as rows, Aside(items_folder, partition) as aside:
        for some in _in_chunks(archived, end):
            for record in some:
                applied = fold.meta.applied
                try:
                    fold.fold((record,))
                except Gap as error:
                    raise BackfillError(f"the archive has a gap inside a file: {error}") from error
                if fold.meta.applied > applied:
                    event = decode(record[2] or b"", fold.tolerance_us)
                    _write(rows, event, fold.rows)
                    aside.add(event)
            fold.snapshot()
            tell(len(some))
    return fold.meta


def _write(rows: RowWriter, event: Event, states: Rows) -> None:
    row = states.get(event.user_id.encode())
    assert row is not None
    head = header(row)
    assert head is not None
    rows.add(event.user_id, head.event_time, head.created, row, head.version)


def _in_chunks(archived: Sequence[ArchiveFile], end: int) -> Iterator[list[tuple[int, bytes | None, bytes | None]]]:
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

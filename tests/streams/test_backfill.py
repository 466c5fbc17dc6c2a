"""The backfill from an archive: the worker's own states, tiles as they were known, and no gap passed over."""

import os
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo import offline
from feature_repo.features import item, user
from feature_repo.layout import STATE, VERSION
from freshet.settings import Settings
from streams.aggregates import TILE
from streams.backfill import BackfillError, backfill
from streams.events import Event, Micros
from streams.fold.users import UserFold
from streams.profiles import Profile, header
from streams.sinks import files
from streams.tiled import CLOSING
from tests.streams.folded import Record, archive, fold, history, partitioned


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """No servers: a backfill from what is archived needs none."""
    return Settings(home=tmp_path)


def rows(settings: Settings, profile: Profile) -> list[tuple[str, Micros, Micros, bytes, int]]:
    table = pq.read_table(offline.folder(settings, profile).resolve())
    stamps = [
        [at.value // 1_000 for at in table.column(n).to_pandas()] for n in ("event_timestamp", "created_timestamp")
    ]
    texts = (table.column(n).to_pylist() for n in (profile.key, STATE[profile.name], VERSION[profile.name]))
    keys, states, versions = texts
    return list(zip(keys, *stamps, states, versions, strict=True))


def test_a_user_row_for_each_applied_event_equals_the_workers_at_that_version(settings: Settings) -> None:
    events = history(1_500)
    records = partitioned(settings, [*events, *events[100:150]])  # some were sent twice
    archive(settings, records)
    report = backfill(settings, archived_only=True)
    assert (report.applied, report.duplicate, report.user_rows) == (1_500, 50, 1_500)
    assert report.offsets == {p: len(mine) for p, mine in records.items()}
    found = {(key, version): (data, at, created) for key, at, created, data, version in rows(settings, user)}
    assert len(found) == 1_500
    online = fold(settings, records).user_rows
    assert len(online) > 200
    for key, data in online:
        head = header(data)
        assert head is not None
        assert found[key.decode(), head.version] == (data, head.event_time, head.created)


def test_the_size_of_its_chunks_changes_no_byte(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(settings, partitioned(settings, history(800)))
    backfill(settings, archived_only=True)
    before = sorted(rows(settings, user))
    monkeypatch.setattr("streams.backfill.users.FOLD_AT_ONCE", 50)
    monkeypatch.setattr("streams.backfill.users.FOLD_AT_ONCE", 20)
    monkeypatch.setattr("streams.backfill.rows.GROUP_ROWS", 64)
    monkeypatch.setattr("streams.backfill.rows.FILE_ROWS", 200)
    backfill(settings, archived_only=True)
    assert sorted(rows(settings, user)) == before


def test_several_processes_change_no_row(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(settings, partitioned(settings, history(800)))
    alone = backfill(settings, archived_only=True)
    before = [sorted(rows(settings, profile)) for profile in (user, item)]
    monkeypatch.setattr("streams.backfill.run.SMALL", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    told: list[tuple[str, int, int | None]] = []
    together = backfill(settings, archived_only=True, progress=lambda *line: told.append(line))
    assert [sorted(rows(settings, profile)) for profile in (user, item)] == before
    assert (together.user_rows, together.item_rows, together.applied) == (800, alone.item_rows, 800)
    assert told[-1] == ("backfill: item tiles", 800, 800)


def test_an_item_row_holds_what_was_known_when_its_tile_closed(settings: Settings) -> None:
    events = history(900)
    archive(settings, partitioned(settings, events))
    backfill(settings, archived_only=True)
    by_item: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_item[event.item_id].append(event)
    found = rows(settings, item)
    asked: dict[str, set[Micros]] = defaultdict(set)
    for key, at, created, data, version in found:
        tile = at - CLOSING
        asked[key].add(tile)
        assert tile % TILE == 0
        assert version == -1
        known = [e for e in by_item[key] if e.event_time < tile and e.arrival < tile + CLOSING]
        assert created == max(e.arrival for e in known)
        fresh = item.new()
        for event in known:
            item.update(fresh, event)
        assert item.values_at_tile(data, tile) == item.values_at_tile(fresh, tile)
    for key, own in by_item.items():  # and there is a row wherever something became known
        want = set()
        for event in own:
            tile = event.event_time // TILE * TILE + TILE
            while event.arrival >= tile + CLOSING:
                tile += TILE
            want.add(tile)
        assert asked[key] == want


def test_a_tile_that_is_still_open_has_no_row(settings: Settings) -> None:
    import time

    now = time.time_ns() // 1_000
    old = now - 3 * TILE
    events = [Event("a", "u", "i", "view", old, old), Event("b", "u", "i", "view", now, now)]
    archive(settings, partitioned(settings, events))
    report = backfill(settings, archived_only=True)
    assert (report.user_rows, report.item_rows) == (2, 1)


def test_a_backfill_up_to_given_offsets_and_again_replaces_the_rows(settings: Settings) -> None:
    records = partitioned(settings, history(600))
    archive(settings, records)
    until = {p: len(mine) // 2 for p, mine in records.items()}
    assert backfill(settings, until).user_rows == sum(until.values())
    assert backfill(settings, archived_only=True).user_rows == 600
    assert len(rows(settings, user)) == 600
    assert len(list(offline.folder(settings, user).parent.iterdir())) == 2, "the link and the folder that it names"
    with pytest.raises(BackfillError, match=r"up to offset \d+, not 9999"):
        backfill(settings, {0: 9999})


def test_a_gap_between_files_is_refused(settings: Settings) -> None:
    records = partitioned(settings, history(900))
    archive(settings, records, size=50)
    partition, found = max(files.files(settings.archive_dir, "events").items(), key=lambda kept: len(kept[1]))
    gone = found[1]
    os.remove(gone.path)
    with pytest.raises(BackfillError, match=f"misses offsets {gone.first} to {gone.last} of partition {partition}"):
        backfill(settings, archived_only=True)
    assert not offline.folder(settings, user).exists()


def test_a_gap_inside_a_file_and_files_that_overlap_are_refused(settings: Settings) -> None:
    mine = [Record(r.offset, r.key, r.value) for r in partitioned(settings, history(400))[2]]
    files.write(settings.archive_dir, "events", 2, mine[:20] + mine[21:40])
    with pytest.raises(BackfillError, match="gap inside a file"):
        backfill(settings, archived_only=True)
    files.write(settings.archive_dir, "events", 2, mine[39:60])
    with pytest.raises(BackfillError, match=r"two files in .* hold offset 39"):
        backfill(settings, archived_only=True)


def test_an_empty_archive_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(BackfillError, match="is the archive sink running"):
        backfill(settings, archived_only=True)


def test_a_failed_backfill_leaves_the_rows_as_they_were(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(settings, partitioned(settings, history(300)))
    backfill(settings, archived_only=True)
    before = rows(settings, user)

    def fail(self: UserFold, records: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(UserFold, "fold", fail)
    with pytest.raises(RuntimeError, match="planted"):
        backfill(settings, archived_only=True)
    assert rows(settings, user) == before
    assert len(list(offline.folder(settings, user).parent.iterdir())) == 2, "the link and the folder that it names"

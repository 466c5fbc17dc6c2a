"""The order of a replay as laws; resuming, duplicates and times against a real broker."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.settings import Settings
from streams import replay
from streams.catalogue import read_catalogue
from streams.replay import BadSource, MovieLens, player
from streams.replay.interactions import Ids, Interactions, event_ids, timeline
from tests.streams.test_ingest import events_in_kafka

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 6)), max_size=40)


def interactions(drawn: list[tuple[int, int, int]]) -> Interactions:
    table = np.array(drawn, np.int64).reshape(-1, 3)
    names = [str(n) for n in range(4)]
    return Interactions(Ids(table[:, 0], names), Ids(table[:, 1], names), Ids.constant("view", len(table)), table[:, 2])


@given(rows)
def test_times_are_unique_ordered_and_as_near_as_can_be(drawn: list[tuple[int, int, int]]) -> None:
    line = timeline(interactions(drawn))
    order = [drawn[row] for row in line.rows]
    assert [(at, u, i) for u, i, at in order] == sorted((at, u, i) for u, i, at in drawn)
    expected, last = [], -1
    for _, _, at in order:
        last = max(at, last + 1)
        expected.append(last)
    assert line.times.tolist() == expected


@given(rows, st.integers(0, 7), st.integers(0, 7))
def test_a_part_of_history_has_the_times_of_the_whole(drawn: list[tuple[int, int, int]], start: int, end: int) -> None:
    whole = timeline(interactions(drawn))
    part = whole.between(start, end)
    inside = [(r, t) for r, t in zip(whole.rows.tolist(), whole.times.tolist(), strict=True) if start <= t < end]
    assert list(zip(part.rows.tolist(), part.times.tolist(), strict=True)) == inside


@given(rows, st.booleans())
def test_event_ids_are_unique_and_do_not_depend_on_the_order_in_the_file(
    drawn: list[tuple[int, int, int]], reverse: bool
) -> None:
    def named(some: list[tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
        i = interactions(some)
        line = timeline(i)
        ids = event_ids(i, line, "t", repeats=True)
        assert len(set(ids)) == len(some)
        return {name: some[row] for name, row in zip(ids, line.rows.tolist(), strict=True)}

    assert named(drawn) == named(drawn[::-1])


@given(rows, st.floats(0, 1), st.integers(0, 5))
def test_duplicates_follow_their_event_and_are_the_same_each_time(
    drawn: list[tuple[int, int, int]], share: float, seed: int
) -> None:
    line = timeline(interactions(drawn))
    twice = line.with_duplicates(share, seed, within=10)
    assert twice.times.tolist() == line.with_duplicates(share, seed, within=10).times.tolist()
    times = twice.times.tolist()
    first_of_each = list(dict.fromkeys(times))
    assert first_of_each == line.times.tolist()
    assert all(times.count(at) <= 2 for at in first_of_each)


@pytest.fixture
def movielens(tmp_path: Path) -> MovieLens:
    """400 ratings of 20 users, several at the same instant."""
    folder = tmp_path / "ml"
    folder.mkdir()
    ratings = [
        f"{user}::{film}::{1 + (user * film) % 5}::{1_000 + 100 * film + user // 7}"
        for user in range(1, 21)
        for film in range(1, 21)
    ]
    (folder / "ratings.dat").write_text("\n".join(reversed(ratings)) + "\n")
    (folder / "movies.dat").write_text("".join(f"{film}::Film {film}::Drama\n" for film in range(1, 21)))
    return MovieLens(folder)


def by_time(line: list[tuple[int, str]]) -> list[str]:
    return [name for _, name in sorted(line)]


@pytest.mark.kafka
async def test_history_arrives_once_in_order_with_its_catalogue(settings: Settings, movielens: MovieLens) -> None:
    seen: list[tuple[str, int]] = []
    report = await replay.play(settings, movielens, progress=lambda label, done, _: seen.append((label, done)))
    assert (report.records, report.already, report.items, report.duplicates) == (400, 0, 20, 0)
    assert seen[-1] == ("events", 400)
    found = await events_in_kafka(settings)
    assert len({e.event_id for e in found}) == len({e.event_time for e in found}) == len(found) == 400
    history = sorted(found, key=lambda e: e.event_time)
    keys = [(e.event_time // 1_000_000, int(e.user_id), int(e.item_id)) for e in history]
    assert keys == sorted(keys)
    assert all(e.arrival == e.event_time and e.type == "rate" and e.categories == ("Drama",) for e in found)
    assert {e.event_id: e.value for e in found}["ml-7-3"] == 1 + 21 % 5
    assert (await read_catalogue(settings))["4"].title == "Film 4"
    for user in {e.user_id for e in found}:  # the order of a user's partition is that of time
        times = [e.event_time for e in found if e.user_id == user]
        assert all(a < b for a, b in pairwise(times))
    again = await replay.play(settings, movielens)
    assert (again.records, again.already) == (400, 400)
    assert len(await events_in_kafka(settings)) == 400


@pytest.mark.kafka
async def test_a_replay_that_was_stopped_goes_on_and_nothing_is_lost(
    settings: Settings, movielens: MovieLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "CHUNK", 30)

    class Stopped(Exception):
        pass

    def stop_at(place: int) -> player.Progress:
        def progress(label: str, done: int, _: int | None) -> None:
            if label == "events" and done >= place:
                raise Stopped

        return progress

    options = {"duplicates": 0.2, "seed": 3, "rebase_to": 1_700_000_000_000_000}
    for place in (1, 150, 333):
        with pytest.raises(Stopped):
            await replay.play(settings, movielens, progress=stop_at(place), **options)
    report = await replay.play(settings, movielens, **options)
    assert 0 < report.already < report.records == 400 + report.duplicates
    assert 40 < report.duplicates < 120
    found = await events_in_kafka(settings)
    assert len(found) == report.records  # stopped between chunks, so not even a chunk was sent again
    assert len({e.event_id for e in found}) == 400
    assert max(e.event_time for e in found) == report.last == 1_700_000_000_000_000
    assert len({(e.event_id, e.event_time, e.value) for e in found}) == 400


@pytest.mark.kafka
async def test_a_part_of_history_and_then_the_rest_make_the_whole(settings: Settings, movielens: MovieLens) -> None:
    middle = 2_000_000_000
    await replay.play(settings, movielens, end=middle)
    assert max(e.event_time for e in await events_in_kafka(settings)) < middle
    await replay.play(settings, movielens, start=middle)
    found = await events_in_kafka(settings)
    assert len(found) == len({e.event_id for e in found}) == len({e.event_time for e in found}) == 400
    with pytest.raises(BadSource, match="between the two dates"):
        await replay.play(settings, movielens, end=5)


@pytest.mark.kafka
async def test_speed_spreads_the_sends_over_time(settings: Settings, movielens: MovieLens) -> None:
    sends: list[int] = []
    report = await replay.play(
        settings,
        movielens,
        speed=2_000,
        progress=lambda label, done, _: sends.append(done) if label == "events" else None,
    )
    history_s = (report.last or 0) / 1e6 - (report.first or 0) / 1e6
    assert report.seconds >= history_s / 2_000 - player.TICK_S
    assert len(sends) > 10
    assert sends[-1] == 400


@pytest.mark.kafka
async def test_a_ledger_of_another_cluster_is_noticed(settings: Settings, movielens: MovieLens) -> None:
    await replay.play(settings, movielens)
    [ledger] = (settings.home / "replay").iterdir()
    ledger.write_bytes(ledger.read_bytes().replace(b'"sent":400', b'"sent":999999'))
    with pytest.raises(BadSource, match="emptied"):
        await replay.play(settings, movielens)
    report = await replay.play(settings, movielens, resume=False)
    assert report.already == 0

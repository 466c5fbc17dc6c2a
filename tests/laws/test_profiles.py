"""The laws of a whole profile: its rows, its versions, its reader, and how it evolves."""

import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from sysconfig import get_path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import layout
from feature_repo.features import item, user
from streams import topics
from streams.aggregates import (
    DAY,
    HOUR,
    SECOND,
    TILE,
    BadDeclaration,
    Count,
    Decayed,
    Distinct,
    Mean,
    Recent,
    Since,
    Sum,
    on,
)
from streams.engine import batches
from streams.events import Event
from streams.profiles import BadState, Profile, State, header
from streams.tiled import TiledProfile, t_item
from tests.laws.streams_of_events import START, events

ORDER_FREE = [
    Count("n", windows=["1h", "12h", "24h", "7d", "30d", "ever"]),
    Sum("s", of=on("view", "rate", at_least=0.5), windows=["1h", "24h", "30d", "ever"]),
    Mean("m", of=on("rate", at_least=-3) | on("click"), windows=["24h", "30d"], default=-1.0),
    Distinct("d", by="categories", windows=["1h", "30d"], k=8),
    Distinct("u", by="item_id", windows=["ever"], k=8),
    Recent("r", by="item_id", n=5),
    Recent("session", by="session_id", n=3),
    Since("last"),
    Since("first", of=on("click"), first=True),
]
EVERY = Profile("every", "user_id", [*ORDER_FREE, Decayed("w", by="categories", half_life="1h", keys=4)])
EVERY_TILED = TiledProfile("tiled", "item_id", ORDER_FREE)


def fold(profile: Profile, some: list[Event]) -> State:
    state = profile.new()
    for n, event in enumerate(some):
        if not profile.late(event.event_time, state.newest):
            profile.update(state, event)
            state.version = n
    return state


def merged(some: list[Event], cuts: list[int]) -> State:
    """An item's state from the deltas of commits that end at `cuts`."""
    row, first = item.encode(item.new()), 0
    for cut in [*sorted(cuts), len(some)]:
        if cut > first:
            row, first = item.advance(row, some[first:cut], cut - 1), cut
    return item.decode(row)


@given(some=events(), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_a_row_never_depends_on_where_commits_cut_the_stream(some: list[Event], cuts: list[int]) -> None:
    state, first = user.new(), 0
    for cut in [*sorted(cuts), len(some)]:
        for n in range(first, min(cut, len(some))):
            if not user.late(some[n].event_time, state.newest):
                user.update(state, some[n])
                state.version = n
        first = max(first, cut)
        state = user.decode(user.encode(state))
    assert user.encode(state) == user.encode(fold(user, some))


@pytest.mark.skipif(not Path(get_path("include"), "Python.h").exists(), reason="Python has no headers here")
def test_where_python_has_headers_the_folds_are_compiled() -> None:
    """Or every test of what is compiled would be skipped without a word."""
    assert user.compiled
    assert item.compiled
    assert batches.pack is not None
    assert layout.stored_by_kernel is not None
    assert topics.partition_by_kernel is not None


@pytest.mark.skipif(not user.compiled, reason="no kernel was built here: no headers")
@pytest.mark.parametrize("profile", [user, item, EVERY, EVERY_TILED], ids=["user", "item", "every", "tiled"])
@given(some=events(), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_the_compiled_step_is_the_plain_one_byte_for_byte(profile: Profile, some: list[Event], cuts: list[int]) -> None:
    assert profile.compiled
    compiled = plain = None
    for first, cut in pairwise([0, *sorted(cuts), len(some)]):
        compiled, plain = (
            profile.advance(compiled, some[first:cut], cut),
            profile.advance_plainly(plain, some[first:cut], cut),
        )
        assert compiled == plain


def plainly(profile: Profile) -> Profile:
    """The same without its compiled half."""
    plain = copy.copy(profile)
    object.__setattr__(plain, "kernel", None)
    return plain


@pytest.mark.skipif(not user.compiled, reason="no kernel was built here: no headers")
@pytest.mark.parametrize("profile", [user, item, EVERY, EVERY_TILED], ids=["user", "item", "every", "tiled"])
@given(some=events(), later=st.sampled_from([-HOUR, 0, 1, TILE, 3 * HOUR, 8 * DAY, 90 * DAY]))
def test_the_compiled_read_is_the_plain_one_to_the_last_bit(profile: Profile, some: list[Event], later: int) -> None:
    plain, row = plainly(profile), profile.advance(None, some, 0)
    at = max((e.event_time for e in some), default=START) + later
    asks = [lambda p: p.values(row, at)]
    if isinstance(profile, TiledProfile):
        tile = at // TILE * TILE
        asks += [
            lambda p: p.values_at_tile(row, tile),
            lambda p: p.reading(row, tile),
            lambda p: p.live_values(row, at),
        ]
    for ask in asks:
        compiled, want = ask(profile), ask(plain)
        assert compiled == want
        assert repr(compiled) == repr(want), "types and signs, too"


def test_the_compiled_step_counts_beyond_a_byte_and_beyond_two() -> None:
    counting = Profile("counting", "user_id", [Count("all", windows=["1h", "ever"]), Sum("sum", windows=["1h"])])
    some = [Event(f"e{n}", "u", "i", "view", START, START, 0.000_001, ()) for n in range(40_000)]
    rows = [step(None, some, 0) for step in (counting.advance, counting.advance_plainly)]
    more = [Event("more", "u", "i", "view", START, START, -0.039_999, ())]
    assert rows[0] == rows[1]
    assert counting.advance(rows[0], more, 1) == counting.advance_plainly(rows[1], more, 1)
    assert counting.values(rows[0], START) == {"all_1h": 40_000, "all_ever": 40_000, "sum_1h": 0.04}


@given(
    gaps=st.lists(st.sampled_from([0, 1, 1 << 39, 1 << 40, 1 << 47, 1 << 48]), min_size=1, max_size=12), data=st.data()
)
def test_times_take_as_few_bytes_as_tell_them_apart(gaps: list[int], data: st.DataObject) -> None:
    """In whichever order they come: 5, 6 or 8 each, and fewer again once an old one is forgotten."""
    recent = Recent("r", n=3)
    profile, times = Profile("few", "user_id", [recent], lateness="ever"), list(accumulate(gaps, initial=START))
    some = [Event(f"e{n}", "u", f"i{n % 3}", "view", at, at, None, ()) for n, at in enumerate(times)]
    compiled = plain = None
    for version, event in enumerate(data.draw(st.permutations(some))):
        compiled, plain = (
            profile.advance(compiled, [event], version),
            profile.advance_plainly(plain, [event], version),
        )
        assert compiled == plain
    assert plain is not None
    (slot,) = profile.decode(plain).part.packed
    apart = times[-1] - times[-3:][0]
    assert slot is not None
    assert slot[2] == (5 if apart < 1 << 40 else 6 if apart < 1 << 48 else 8)
    assert [at for at, _ in recent.unpack(slot)] == times[-3:]
    assert profile.values(plain, times[-1])["r_age_s"] == [(times[-1] - at) / SECOND for at in reversed(times[-3:])]


def test_threads_share_a_profile_without_harm() -> None:
    some = [Event(f"e{n}", "u", f"i{n % 7}", "click", START + n, START + n, None, ("a", "b")) for n in range(400)]
    want = user.advance_plainly(None, some, 0)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: user.advance(None, some, 0), range(40))) == {want}


@given(some=events(), cut=st.integers(0, 400), junk=st.binary(max_size=12), at=st.integers(0, 400))
def test_a_damaged_row_is_refused_or_read_alike_and_never_followed_beyond_its_end(
    some: list[Event], cut: int, junk: bytes, at: int
) -> None:
    for profile in (user, item):
        row = profile.advance(None, some, 0)
        damaged = row[:at] + junk + row[at + len(junk) :] if cut % 2 else row[: min(cut, len(row))]
        for advance in (profile.advance, profile.advance_plainly):
            try:
                advance(damaged, some[:3], 1)
            except (BadState, OverflowError):
                pass
        try:
            profile.values(damaged, START)
        except BadState:
            pass


@given(some=events(), cuts=st.lists(st.integers(0, 40), max_size=5), data=st.data())
def test_an_item_reads_the_same_however_its_events_were_cut_and_ordered(
    some: list[Event], cuts: list[int], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(some))
    newest = max((e.event_time for e in some), default=START)
    for tile in (newest // TILE * TILE, newest // TILE * TILE + TILE, newest // TILE * TILE + DAY // TILE * TILE):
        assert item.values_at_tile(merged(some, cuts), tile) == item.values_at_tile(merged(shuffled, []), tile)


@given(some=events())
def test_an_item_read_at_a_tiles_end_holds_only_events_before_it(some: list[Event]) -> None:
    newest = max((e.event_time for e in some), default=START)
    tile = newest // TILE * TILE  # the newest tile is still open
    before = [e for e in some if e.event_time < tile]
    assert item.values_at_tile(merged(some, []), tile) == item.values_at_tile(merged(before, []), tile)


@given(some=events())
def test_event_times_of_rows_rise_and_created_never_falls(some: list[Event]) -> None:
    state, last = user.new(), (0, 0)
    for event in some:
        user.update(state, event)
        assert state.event_time > last[0]
        assert state.event_time >= event.event_time
        assert state.created >= max(last[1], event.arrival)
        last = state.event_time, state.created


def test_an_event_is_late_when_it_is_older_than_the_newest_by_more_than_the_declaration_allows() -> None:
    assert user.late(START - 30 * DAY - 1, START)
    assert not user.late(START - 30 * DAY, START)
    assert not item.late(0, START), "lateness is judged by the user's profile"


def test_the_header_is_readable_without_the_slots() -> None:
    state = fold(user, [Event("e", "u", "i", "view", START, START + 7)])
    head = header(user.encode(state))
    assert head is not None
    assert (head.version, head.event_time, head.created, head.newest) == (0, START, START + 7, START)


@given(junk=st.binary(max_size=80))
def test_bytes_that_are_no_row_read_as_never_seen(junk: bytes) -> None:
    if header(junk) is None:
        assert user.values(junk, START) == user.values(None, START) == {c.name: c.default for c in user.columns}


def test_damaged_rows_and_rows_of_another_profile_are_refused() -> None:
    row = user.encode(fold(user, [Event("e", "u", "i", "click", START, START)]))
    for bad in (row[:-1], row + b"\0", item.encode(item.new()), b"junk"):
        with pytest.raises(BadState):
            user.decode(bad)


@given(some=events())
def test_an_old_row_decodes_under_a_newer_declaration(some: list[Event]) -> None:
    old = Profile("p", "user_id", [Count("n", windows=["1h"]), Recent("r", n=3), Since("s")])
    new = Profile("p", "user_id", [Since("s"), Decayed("w"), Recent("r", n=4), Count("n", windows=["1h"])])
    at = max((e.event_time for e in some), default=START)
    before, after = old.values(fold(old, some), at), new.values(old.encode(fold(old, some)), at)
    assert after["n_1h"] == before["n_1h"]
    assert after["s_s"] == before["s_s"]
    assert (after["r"], after["w"]) == ([], [])  # another n is another feature; a new feature was never seen


def test_an_event_reaches_only_the_features_that_select_it() -> None:
    p = Profile("p", "user_id", [Count("good", of=on("click") | on("rate", at_least=4), windows=["ever"])])

    def count(kind: str, value: float | None) -> Any:
        return p.values(fold(p, [Event("e", "u", "i", kind, START, START, value)]), START)["good_ever"]

    assert [count("click", None), count("rate", 4.0), count("rate", 3.9), count("rate", None), count("view", 9.0)] == [
        1,
        1,
        0,
        0,
        0,
    ]


def test_a_profile_that_cannot_work_is_refused_with_the_reason() -> None:
    with pytest.raises(BadDeclaration, match="depends on the order of events"):
        TiledProfile("item", "item_id", [Decayed("w")])
    with pytest.raises(BadDeclaration, match="the column n_1h"):
        Profile("p", "user_id", [Count("n", windows=["1h"]), Distinct("n", windows=["1h"])])


def test_items_are_read_at_the_last_closed_tile() -> None:
    tile = START // TILE * TILE
    assert t_item(tile + 10_000_000) == tile
    assert t_item(tile + 9_999_999) == tile - TILE


def test_enough_features_are_declared_for_the_ranker() -> None:
    assert len(user.columns) >= 12
    assert len(item.columns) >= 8


@given(some=events(), later=st.integers(0, 40 * DAY // TILE))
def test_values_stay_as_long_as_they_are_said_to(some: list[Event], later: int) -> None:
    ages = {c.name for f in item.features if f.ageing for c in f.columns}
    state = merged(some, [])
    tile = max((e.event_time for e in some), default=START) // TILE * TILE + later * TILE
    read, until = item.reading(item.encode(state), tile)
    assert read == item.values_at_tile(state, tile)
    assert until > tile

    def values(at: int) -> dict[str, Any]:
        return {k: v for k, v in item.values_at_tile(state, at).items() if k not in ages}

    assert values(min(until, tile + 60 * DAY) - TILE) == values(tile)

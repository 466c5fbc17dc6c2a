"""The compiled fold is the plain one: the same rows, deltas, counts and dead letters of any records, byte for byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.features import item, user
from streams.events import Event, encode
from streams.fold import deltas, ring, states
from streams.fold import items as item_folds
from streams.fold import users as user_folds
from streams.fold.items import ItemFold
from streams.fold.records import Record, encode_json
from streams.fold.rows import PlainHeap
from streams.fold.states import Gap, ProfileFold
from streams.fold.users import UserFold
from streams.profiles import Profile
from streams.topics import partition_of
from tests.laws.streams_of_events import START
from tests.laws.test_profiles import plainly

pytestmark = pytest.mark.skipif(not user.compiled, reason="no kernel was built here: no headers")

DAY = 86_400_000_000
PARTITIONS = 3
USERS = [f"u{n}" for n in range(9)]
HERE = partition_of(b"u0", PARTITIONS)

_texts = st.one_of(
    st.sampled_from(USERS),
    st.sampled_from(
        ["i1", "é", "日本", "i" * 70, "x" * 256, "x" * 257, "a b", 'q"', "back\\slash", "", "\x7f", "\t", "😀"]
    ),
    st.text(max_size=4),
)
_values = st.one_of(
    st.none(),
    st.sampled_from([0.5, -0.0, 0.0, 1e-7, 0.1, 1e6, -1e6, 1_000_000.5, 123456.123456789, 3.0000000000000004, 5e-324]),
    st.floats(-1e6, 1e6),
)
_times = st.one_of(
    st.integers(START, START + 3 * DAY),
    st.sampled_from([START - 40 * DAY, 0, 5, 1 << 40, START + 50 * DAY, -1, 32_503_680_000_000_000, 1 << 62]),
)
_events = st.builds(
    Event,
    event_id=st.one_of(st.integers(0, 60).map(lambda n: f"e{n}"), _texts),
    user_id=st.one_of(st.sampled_from(USERS), _texts),
    item_id=st.one_of(st.integers(0, 6).map(lambda n: f"i{n}"), _texts),
    type=st.one_of(st.sampled_from(["view", "click", "rate", "purchase", "like", "custom_1"]), _texts),
    event_time=_times,
    arrival=st.one_of(_times, st.just(START + 3 * DAY)),
    value=_values,
    categories=st.lists(_texts, max_size=3).map(tuple),
    properties=st.dictionaries(_texts, st.integers(), max_size=1),
    session_id=st.one_of(st.none(), _texts),
    request_id=st.one_of(st.none(), _texts),
)
_likely = st.builds(
    lambda n, user, item, kind, at, value, categories: Event(
        f"e{n}", user, item, kind, at, START + 3 * DAY, value, categories
    ),
    st.integers(0, 60),
    st.sampled_from(USERS),
    st.sampled_from(["i1", "i2", "i3", "é"]),
    st.sampled_from(["view", "click", "rate", "purchase", "like"]),
    st.integers(START, START + 3 * DAY),
    st.one_of(st.none(), st.integers(-100, 500).map(lambda n: n / 100)),
    st.lists(st.sampled_from("abcde"), max_size=3).map(tuple),
)


def _damage(data: bytes, damage: tuple[int, bytes, bool] | None) -> bytes:
    if damage is None:
        return data
    at, junk, over = damage
    at %= len(data) + 1
    return data[:at] + junk + data[at + len(junk) * over :]


_damages = st.one_of(
    st.none(),
    st.none(),
    st.tuples(
        st.integers(0, 400),
        st.one_of(st.binary(max_size=2), st.sampled_from([b" ", b"0", b"9", b".", b"-", b"e", b'"', b",", b"}", b"]"])),
        st.booleans(),
    ),
)


@st.composite
def _records(draw: st.DrawFn) -> tuple[bytes | None, bytes | None]:
    event = draw(st.one_of(_likely, _likely, _events))
    try:
        data = encode(event)
    except (UnicodeEncodeError, msgspec.EncodeError):  # a lone surrogate, a number beyond 64 bits
        return None, None
    key = draw(st.sampled_from([event.user_id.encode()] * 9 + [b"u1", b"other", b"", None]))
    return key, _damage(data, draw(_damages))


def _both(made: type[ProfileFold[Profile]], *args: object, **more: object) -> list[ProfileFold[Profile]]:
    compiled = made(*args, **more)
    with patch.object(user_folds, "user", plainly(user)), patch.object(item_folds, "item", plainly(item)):
        plain = made(*args, **more)
    assert compiled._compiled is not None
    assert plain._compiled is None
    plain.rows.held = PlainHeap()  # type: ignore[assignment]
    return [compiled, plain]


def _rows(fold: ProfileFold[Profile]) -> dict[bytes, bytes]:
    return dict(fold.rows.held.rows(list(fold.rows.held)))


def _fold(fold: ProfileFold[Profile], records: list[Record]) -> str:
    try:
        fold.fold(records)
    except Gap as error:
        return str(error)
    return ""


def _cut(fold: ProfileFold[Profile]) -> tuple[object, ...]:
    snapshot = fold.snapshot()
    return (
        list(snapshot.rows),
        snapshot.records,
        snapshot.deltas,
        snapshot.rejected,
        len(fold.rows),
        encode_json(fold.meta),
    )


@contextmanager
def _limit(most: int) -> Iterator[None]:
    with patch.object(states, "ROW_MAX", most), patch.object(user_folds, "ROW_MAX", most):
        yield


@given(commits=st.lists(st.lists(_records(), max_size=30), max_size=4), most=st.sampled_from([900, 2_000, 900_000]))
def test_both_folds_of_events_make_the_same_of_any_records(
    commits: list[list[tuple[bytes | None, bytes | None]]], most: int
) -> None:
    both = _both(UserFold, HERE, 512, 60_000_000, partitions=PARTITIONS)
    items, offset, handed_on = _both(ItemFold, 1), 7, 0
    with _limit(most):
        for commit in commits:
            records = [(offset + n, key, value) for n, (key, value) in enumerate(commit)]
            offset += len(records)
            for fold in both:
                fold.fold(records)
            cuts = [_cut(fold) for fold in both]
            assert cuts[0] == cuts[1]
            handed = [(handed_on + 2 * n, None, data) for n, (target, data) in enumerate(cuts[0][2]) if target == 1]  # type: ignore[arg-type, var-annotated]
            handed_on += 2 * len(handed) + 2
            assert [_fold(fold, handed) for fold in items] == ["", ""]
            cuts = [_cut(fold) for fold in items]
            assert cuts[0] == cuts[1]


@given(ids=st.lists(st.integers(0, 14), max_size=60), cuts=st.sets(st.integers(0, 60), max_size=5))
def test_both_folds_forget_an_id_at_the_same_event_however_records_are_cut(ids: list[int], cuts: set[int]) -> None:
    """With a dedup memory of two blocks of four ids, which is full and moves on in the middle of a chunk."""
    one = Event("", "u0", "i", "view", 1_780_000_000_000_000, 1_780_000_000_000_000)
    records = [(n, b"u0", encode(msgspec.structs.replace(one, event_id=f"e{k}"))) for n, k in enumerate(ids)]
    edges = [0, *sorted(cut for cut in cuts if cut < len(ids)), len(ids)]
    with patch.object(ring, "BLOCK", 4):
        compiled, plain = _both(UserFold, partition_of(b"u0", PARTITIONS), 8, 60_000_000, partitions=PARTITIONS)
        for record in records:
            plain.fold([record])
        for start, end in pairwise(edges):
            compiled.fold(records[start:end])
        assert _cut(compiled) == _cut(plain)


@given(
    some=st.lists(_likely, min_size=1, max_size=8),
    damages=st.lists(_damages, min_size=3, max_size=3),
    offsets=st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_both_folds_of_deltas_make_the_same_of_damaged_ones(
    some: list[Event], damages: list[tuple[int, bytes, bool] | None], offsets: list[int]
) -> None:
    records, first = [], 0
    for damage, offset in zip(damages, offsets, strict=True):
        (data,) = deltas.encode(2, first, some)
        first += len(some)
        records.append((offset, None, _damage(data, damage)))
    found = []
    for fold in _both(ItemFold, 1):
        try:
            said = _fold(fold, records)
        except Exception:  # of what no delta of ours holds, e.g. a time beyond 64 bits
            found.append(("left the process",))
            continue
        found.append((said, *(_cut(fold) if not said else ())))
    assert found[0] == found[1]


@pytest.mark.parametrize("offsets", [[5, 6, 8], [5, 5], [5, 4]])
def test_both_folds_of_events_find_the_same_gap(offsets: list[int]) -> None:
    event = Event("e", "u0", "i", "view", START, START)
    records: list[Record] = [
        (offset, b"u0", encode(msgspec.structs.replace(event, event_id=f"e{n}"))) for n, offset in enumerate(offsets)
    ]
    both = _both(UserFold, HERE, 512, 60_000_000, partitions=PARTITIONS)
    said = [_fold(fold, records) for fold in both]
    assert said[0] == said[1] != ""
    assert both[0].meta == both[1].meta


@pytest.mark.parametrize("size", [*range(1, 70), 128, 129, 240, 241, 256])
def test_ids_of_every_length_hash_alike(size: int) -> None:
    both = _both(UserFold, 0, 512, 60_000_000, partitions=1)
    event = Event("".join(chr(97 + n * n % 26) for n in range(size)), "u", "i" * size, "view", START, START)
    for fold in both:
        fold.fold([(0, b"u", encode(event))])
    assert both[0].meta.applied == 1
    assert _cut(both[0]) == _cut(both[1])


@pytest.mark.parametrize("users", [0, 200, 50_000])
def test_both_folds_agree_among_many_rows_of_which_some_were_let_go(users: int) -> None:
    events = [Event(f"e{n}", f"u{n % 700 * 211}", f"i{n % 50}", "view", START + n, START + n) for n in range(1_500)]
    records: list[Record] = [(n, e.user_id.encode(), encode(e)) for n, e in enumerate(events)]
    both = _both(UserFold, 0, 512, 60_000_000, partitions=1)
    rows = {f"u{n}".encode(): user.advance(None, [Event("e", f"u{n}", "i", "view", START, START)], 0) for n in range(9)}
    for fold in both:
        for n in range(users):
            fold.rows.held.put(b"u%d" % n, rows[b"u%d" % (n % 9)])
        for n in range(0, users, 3):
            fold.rows.held.drop((b"u%d" % n,))
        for start in range(0, len(records), 250):
            fold.fold(records[start : start + 250])
    assert both[0].meta.applied == len(events)
    assert _cut(both[0]) == _cut(both[1])
    assert _rows(both[0]) == _rows(both[1])

"""The laws that every aggregate obeys, whatever the events.

fold(a + b) = merge(fold a, fold b) - order does not matter where the declaration says so - a slot survives its bytes -
and a value equals a naive recomputation over the raw events.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.aggregates import (
    DAY,
    EARLY_READ,
    EVER,
    HOUR,
    TILE,
    UNIT,
    Aggregate,
    BadDeclaration,
    Count,
    Decayed,
    Distinct,
    Mean,
    Recent,
    Since,
    Sum,
    hash64,
    on,
    span_of,
    tile_of,
)
from streams.events import Event
from tests.laws.streams_of_events import START, events

AGGREGATES: list[Aggregate] = [
    Count("n", windows=["1h", "12h", "24h", "7d", "30d", "ever"]),
    Sum("s", windows=["1h", "24h", "30d", "ever"]),
    Mean("m", windows=["24h", "30d"], default=-1.0),
    Distinct("d", by="categories", windows=["1h", "30d"], k=8),
    Distinct("u", by="item_id", windows=["ever"], k=8),
    Recent("r", by="item_id", n=5),
    Decayed("w", by="categories", half_life="1d", keys=4),
    Decayed("all", by="item_id", half_life="1h"),
    Since("last"),
    Since("first", first=True, cap="2d"),
]
each = pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda a: f"{type(a).__name__}-{a.name}")


def fold(aggregate: Aggregate, some: list[Event]) -> Any:
    slot = aggregate.new()
    for event in some:
        aggregate.update(slot, event)
    return slot


def read_at(some: list[Event]) -> int:
    """An instant at which a state of these events may be read."""
    return max((e.event_time for e in some), default=START)


def assert_equal(aggregate: Aggregate, a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    if aggregate.mergeable == "exactly":
        assert a == b
    else:
        assert a[0] == b[0]
        assert a[1] == pytest.approx(b[1], rel=1e-9)


@each
@given(a=events(), b=events())
def test_folding_two_streams_is_merging_their_folds(aggregate: Aggregate, a: list[Event], b: list[Event]) -> None:
    if isinstance(aggregate, Decayed):  # dropping the lightest key is where merging approximates, so stay below `keys`
        aggregate = Decayed(aggregate.name, by=aggregate.by, half_life=aggregate.half_life)
    merged = fold(aggregate, a)
    aggregate.merge(merged, fold(aggregate, b))
    at = read_at(a + b)
    mine, other = aggregate.value(fold(aggregate, a + b), at), aggregate.value(merged, at)
    if isinstance(aggregate, Decayed):  # what decayed to nothing may be dropped on one way and not on the other
        mine, other = _heavy(mine), _heavy(other)
    assert_equal(aggregate, mine, other)


def _heavy(value: tuple[Any, ...]) -> tuple[list[str], list[float]]:
    kept = [(k, w) for k, w in zip(*value, strict=True) if w > 2.0**-25]
    return [k for k, _ in kept], [w for _, w in kept]


@each
@given(some=events(), data=st.data())
def test_the_order_of_events_leaves_no_trace_where_the_aggregate_says_so(
    aggregate: Aggregate, some: list[Event], data: st.DataObject
) -> None:
    if aggregate.order_free:
        shuffled = data.draw(st.permutations(some))
        assert aggregate.pack(fold(aggregate, some)) == aggregate.pack(fold(aggregate, shuffled))


@each
@given(some=events(), cut=st.integers(0, 40))
def test_a_slot_survives_its_bytes_at_any_moment(aggregate: Aggregate, some: list[Event], cut: int) -> None:
    packed = aggregate.pack(fold(aggregate, some[:cut]))
    slot = aggregate.unpack(packed) if packed else aggregate.new()
    for event in some[cut:]:
        aggregate.update(slot, event)
    assert aggregate.pack(slot) == aggregate.pack(fold(aggregate, some))
    assert aggregate.value(slot, read_at(some)) == aggregate.value(fold(aggregate, some), read_at(some))


@each
def test_a_new_slot_reads_as_the_declared_defaults_and_packs_to_nothing(aggregate: Aggregate) -> None:
    assert aggregate.value(aggregate.new(), START) == tuple(c.default for c in aggregate.columns)
    assert aggregate.pack(aggregate.new()) == b""


@each
@given(some=events(), later=st.integers(0, 40 * DAY))
def test_reading_changes_nothing(aggregate: Aggregate, some: list[Event], later: int) -> None:
    slot = fold(aggregate, some)
    before = aggregate.pack(slot)
    first = aggregate.value(slot, read_at(some) + later)
    assert aggregate.value(slot, read_at(some) + later) == first
    assert aggregate.pack(slot) == before


def within(some: list[Event], window: int, at: int) -> list[Event]:
    """The boundary rule, by hand."""
    if window == EVER:
        return some
    size = tile_of(window)
    return [e for e in some if e.event_time >= (at - window) // size * size]


def naive_count(a: Count, some: list[Event], at: int) -> list[Any]:
    return [len(within(some, span_of(w), at)) for w in a.windows]


def naive_sum(a: Sum, some: list[Event], at: int) -> list[Any]:
    return [
        sum(round(e.value * UNIT) for e in within(some, span_of(w), at) if e.value is not None) / UNIT
        for w in a.windows
    ]


def naive_mean(a: Mean, some: list[Event], at: int) -> list[Any]:
    out = []
    for w in a.windows:
        values = [round(e.value * UNIT) for e in within(some, span_of(w), at) if e.value is not None]
        out.append(sum(values) / UNIT / len(values) if values else a.default)
    return out


def naive_distinct(a: Distinct, some: list[Event], at: int) -> list[Any]:
    out = []
    for w in a.windows:
        inside = within(some, span_of(w), at)
        texts = {c for e in inside for c in (e.categories if a.by == "categories" else (e.item_id,))}
        hashes = sorted(map(hash64, texts))
        out.append(len(hashes) if len(hashes) < a.k else round((a.k - 1) * 2.0**64 / (hashes[a.k - 1] + 1)))
    return out


def naive_recent(a: Recent, some: list[Event], at: int) -> list[Any]:
    newest = sorted(((e.event_time, e.item_id) for e in some), reverse=True)[: a.n]
    return [[i for _, i in newest], [(at - t) / 1e6 for t, _ in newest]]


def naive_since(a: Since, some: list[Event], at: int) -> list[Any]:
    cap = span_of(a.cap)
    times = [e.event_time for e in some]
    return [min(at - (min(times) if a.first else max(times)), cap) / 1e6 if times else cap / 1e6]


NAIVE: dict[type, Callable[..., list[Any]]] = {
    Count: naive_count,
    Sum: naive_sum,
    Mean: naive_mean,
    Distinct: naive_distinct,
    Recent: naive_recent,
    Since: naive_since,
}


@pytest.mark.parametrize(
    "aggregate", [a for a in AGGREGATES if type(a) in NAIVE], ids=lambda a: f"{type(a).__name__}-{a.name}"
)
@given(some=events(), later=st.integers(0, 40 * DAY))
def test_a_value_equals_the_naive_recomputation(aggregate: Aggregate, some: list[Event], later: int) -> None:
    at = read_at(some) + later
    assert list(aggregate.value(fold(aggregate, some), at)) == NAIVE[type(aggregate)](aggregate, some, at)


@given(some=events())
def test_a_state_may_be_read_a_little_before_its_newest_event(some: list[Event]) -> None:
    """Clocks differ; a read up to EARLY_READ behind the newest event still finds every tile it needs."""
    counts = Count("n", windows=["1h", "24h", "30d"])
    at = read_at(some) - EARLY_READ
    assert list(counts.value(fold(counts, some), at)) == naive_count(counts, some, at)


@given(some=events(), later=st.integers(0, 5 * DAY))
def test_decayed_weights_equal_the_sum_of_each_events_own_decay(some: list[Event], later: int) -> None:
    interest = Decayed("w", by="categories", half_life="1d")
    at = read_at(some) + later
    want: dict[str, list[float]] = {}
    for e in some:
        for c in e.categories:
            want.setdefault(c, []).append(2.0 ** -((at - e.event_time) / DAY))
    got = dict(zip(*interest.value(fold(interest, some), at), strict=True))
    for category, parts in want.items():
        assert got.get(category, 0.0) == pytest.approx(math.fsum(parts), rel=1e-9, abs=len(parts) * 2.0**-59)
    assert got.keys() <= want.keys()


def test_the_boundary_is_the_tile_that_holds_t_minus_w() -> None:
    r"""A window of one hour read at 10:07 begins with the tile of 09:05.

    tiles   |09:00 |09:05 |09:10 ...        |10:05 |
    events     x      x                        x
    window         [==============================10:07
    """
    counts = Count("n", windows=["1h"])
    day = START // DAY * DAY
    slot = fold(counts, [_view(day + 9 * HOUR + m * TILE // 5) for m in (4, 5, 66)])
    assert counts.value(slot, day + 10 * HOUR + 7 * TILE // 5) == (2,)


def _view(at: int) -> Event:
    return Event(str(at), "u", "i", "view", at, at)


def test_distinct_is_near_the_truth_beyond_k() -> None:
    distinct = Distinct("d", by="item_id", windows=["ever"], k=256)
    slot = fold(distinct, [Event(str(i), "u", f"i{i}", "view", START, START) for i in range(5_000)])
    assert distinct.value(slot, START)[0] == pytest.approx(5_000, rel=0.2)


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda: Count("n"), "give windows"),
        (lambda: Count("n", windows=["1w"]), "must look like"),
        (lambda: Count("n", windows=["90s"]), "not a multiple of its tile"),
        (lambda: Count("n", windows=["25h", "721h", "722h"]), "not a multiple of its tile"),
        (lambda: Recent("r", by="categories"), "one value an event"),
        (lambda: Recent("r", n=0), "at least 1"),
        (lambda: Distinct("d", by="value", windows=["1h"]), "no text field"),
        (lambda: Decayed("w", half_life="ever"), "does not decay"),
        (lambda: on(), "at least one"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_with_the_reason(declare: Callable[[], object], reason: str) -> None:
    with pytest.raises(BadDeclaration, match=reason):
        declare()


def test_a_signature_is_made_of_every_parameter() -> None:
    variants = [
        Count("n", windows=["1h"]),
        Count("m", windows=["1h"]),
        Count("n", windows=["2h"]),
        Count("n", of=on("view"), windows=["1h"]),
        Count("n", of=on("view", at_least=2), windows=["1h"]),
        Sum("n", windows=["1h"]),
        Distinct("n", windows=["1h"]),
        Distinct("n", windows=["1h"], k=65),
    ]
    assert len({v.signature for v in variants}) == len(variants)
    assert Count("n", windows=("1h",)).signature == Count("n", windows=["1h"]).signature

"""The planted world: reproducible, learnable, alive; and what it shows of itself can be drawn."""

import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.aggregates import DAY
from streams.events import Event, check
from streams.simulate import History, World, WorldSpec, cover_svg
from streams.simulate.lift import lift
from streams.simulate.sessions import CLICK, IMPRESSION, KINDS, RATE, draw_focus
from streams.simulate.world import Floats, Ints, examined

END = 1_795_000_000_000_000
SPEC = WorldSpec(seed=5, users=400, items=300, start=END - 30 * DAY, end=END, reserve=40)
SHIFTED = msgspec.structs.replace(SPEC, shift_at=END - 5 * DAY)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SPEC)


@pytest.fixture(scope="module")
def history(world: World) -> History:
    return History(world, 20_000)


def test_the_same_seed_gives_the_same_history_and_another_seed_another(history: History) -> None:
    again, other = History(World(SPEC), 20_000), History(World(msgspec.structs.replace(SPEC, seed=6)), 20_000)
    for name in ("user", "item", "kind", "at", "value", "session", "position"):
        assert np.array_equal(getattr(history.columns, name), getattr(again.columns, name), equal_nan=True)
    assert not np.array_equal(history.columns.item, other.columns.item)
    assert history.interactions().event_ids == again.interactions().event_ids
    assert set(history.interactions().event_ids or ()).isdisjoint(other.interactions().event_ids or ())


def test_history_is_of_the_asked_length_ends_at_the_end_and_every_event_may_pass_the_door(
    world: World, history: History
) -> None:
    columns = history.columns
    assert len(columns) == 20_000
    assert (np.diff(columns.at) >= 0).all()
    assert END - DAY < columns.at[-1] < END
    assert {KINDS[k] for k in np.unique(columns.kind)} == set(KINDS)
    assert (columns.at >= world.born[columns.item]).all()  # nothing happens to an item before it exists
    for n in range(0, 20_000, 97):
        value = columns.value[n]
        at = int(columns.at[n])
        kind = KINDS[columns.kind[n]]
        check(
            Event(
                str(n),
                world.user_ids[columns.user[n]],
                world.item_ids[columns.item[n]],
                kind,
                at,
                at,
                None if np.isnan(value) else value,
            ),
            0,
        )
    stars = columns.value[columns.kind == RATE]
    assert set(stars) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_items_come_and_go_and_differ_in_popularity(world: World, history: History) -> None:
    columns = history.columns
    clicks = np.bincount(columns.item[columns.kind == CLICK], minlength=SPEC.items)
    assert np.sort(clicks)[-30:].sum() > 0.2 * clicks.sum()
    young, old = (
        world.popularity(np.array([END]))[0, : SPEC.items],
        world.popularity(np.array([END + 40 * DAY]))[0, : SPEC.items],
    )
    assert (old < young).all()
    assert np.isinf(world.popularity(np.array([SPEC.start]))[0]).any()


def test_the_day_has_a_rhythm_and_lists_a_position_bias(world: World) -> None:
    columns = History(world, 60_000).columns
    hours = np.bincount(columns.at // 3_600_000_000 % 24, minlength=24)
    assert hours[20] > 3 * hours[4]
    clicks = np.bincount(columns.position[(columns.kind == CLICK) & (columns.position >= 0)], minlength=6)
    shown = np.bincount(columns.position[columns.kind == IMPRESSION], minlength=6)
    assert (shown > 0).all()
    assert clicks[0] / shown[0] > 1.5 * clicks[5] / shown[5]


def rates(world: World, at_day: float = 0.0, sample: int = 1_500) -> tuple[Floats, Floats, Ints, Ints]:
    rng = np.random.default_rng(0)
    users = rng.choice(world.spec.users, sample, p=world.activity / world.activity.sum())
    at = np.full(sample, END + int(at_day * DAY))
    focus = draw_focus(world, users, at, rng)
    return world.click_probability(users, at, focus), world.click_probability(users, at, np.full(sample, -1)), users, at


def ctr(chance: Floats, lists: Ints) -> float:
    return float((np.take_along_axis(chance, lists, 1) * examined(10)).mean())


def best(chance: Floats) -> Ints:
    return np.argsort(-chance, axis=1)[:, :10]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_there_is_something_to_learn_and_something_left_to_chance(seed: int) -> None:
    world = World(msgspec.structs.replace(SPEC, seed=seed, users=1_000, items=1_000))
    chance, without_focus, users, at = rates(world)
    popular = np.tile(np.argsort(-chance.mean(axis=0))[:10], (len(users), 1))
    stale = world.click_probability(users, at - 14 * DAY, np.full(len(users), -1))
    assert (
        2.0 < ctr(chance, best(chance)) / ctr(chance, popular) < 4.0
    )  # an oracle that knows every taste, and what everybody likes
    assert ctr(chance, best(chance)) > 1.05 * ctr(chance, best(without_focus))  # the session matters
    assert ctr(chance, best(without_focus)) > 1.15 * ctr(chance, best(stale))  # tastes drift
    assert ctr(chance, best(chance)) < 0.35  # even the oracle is mostly not clicked


def test_a_shift_changes_tastes_catalogue_and_spending_and_nothing_before_it() -> None:
    calm, shifted = World(SPEC), World(SHIFTED)
    users = np.arange(200)
    before, after = np.full(200, END - 6 * DAY), np.full(200, END)
    assert np.array_equal(calm.taste(users, before), shifted.taste(users, before))
    assert (calm.taste(users, after) * shifted.taste(users, after)).sum(axis=1).mean() < 0.6
    assert len(shifted.catalogue) == len(calm.catalogue) + 40
    assert np.isinf(calm.popularity(after[:1])[0, 300:]).all()
    assert np.isfinite(shifted.popularity(after[:1])[0, 300:]).all()
    columns = History(shifted, 40_000).columns
    late = columns.at >= END - 5 * DAY
    price = shifted.price[columns.item]
    bought = ~np.isnan(columns.value) & (columns.kind != RATE)
    assert np.allclose(columns.value[bought & ~late], price[bought & ~late], atol=0.01)
    assert (columns.value[bought & late] > 1.2 * price[bought & late]).mean() > 0.9
    assert shifted.stays[columns.user[columns.at > END - 4 * DAY]].all()


@given(st.text(min_size=1, max_size=200), st.lists(st.text(max_size=30), max_size=3))
def test_any_title_has_a_cover_that_is_well_formed_and_always_the_same(title: str, categories: list[str]) -> None:
    title = "".join(c for c in title if c.isprintable())
    names = tuple("".join(c for c in name if c.isprintable()) for name in categories)
    svg = cover_svg(title, names)
    assert svg == cover_svg(title, names)
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace(title, "")


def test_titles_are_readable_and_no_two_are_the_same(world: World) -> None:
    assert len(set(world.titles)) == len(world.titles) == 340
    assert all(5 < len(title) < 60 for title in world.titles)
    assert len({cover_svg(title, ("Mystery",)) for title in world.titles}) == 340


counts = st.lists(st.tuples(st.integers(0, 10), st.just(20)), min_size=3, max_size=30).map(
    lambda c: np.array(c, np.int64)
)


@given(counts, counts)
def test_lift_lies_within_its_interval_and_turns_with_its_arms(arm: Ints, other: Ints) -> None:
    found, turned = lift(arm, other, resamples=300), lift(other, arm, resamples=300)
    if found is None or turned is None:
        assert not other[:, 0].sum() or not arm[:, 0].sum()
        return
    assert found.lift + 1 == pytest.approx(1 / (turned.lift + 1))
    assert found.low <= found.high
    same = lift(np.tile(arm, (20, 1)), np.tile(arm, (20, 1)), resamples=300)
    assert same is not None
    assert same.lift == 0
    assert same.low <= 0 <= same.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        users = rng.beta(2, 8, (2, 150)) * np.array([[1.3], [1.0]])  # users differ, as real ones do
        arm, other = (np.stack([rng.binomial(30, np.minimum(p, 1)), np.full(150, 30)], axis=1) for p in users)
        found = lift(arm, other, resamples=400)
        assert found is not None
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 199

"""The residual: nothing before there are examples, the same from the same, bounded, and it learns what it is for."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loop.residual import SETTLE, Residual
from streams.aggregates import SECOND
from streams.events import Event, Micros

ITEMS = [f"i{n}" for n in range(12)]
USERS = ["u0", "u1", "u2"]
Shown = tuple[str, list[str], list[str]]
"""A list: its user, its items from the top, and those that were clicked."""

lists = st.lists(
    st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5, unique=True).flatmap(
        lambda items: st.tuples(st.sampled_from(USERS), st.just(items), st.lists(st.sampled_from(items), unique=True))
    ),
    max_size=25,
)


def event(user_id: str, item_id: str, kind: str, at: Micros) -> Event:
    return Event(f"{user_id}-{item_id}-{kind}-{at}", user_id, item_id, kind, at, at, None, (), {})


def live(residual: Residual, shown: Sequence[Shown], gap: Micros = SETTLE) -> Residual:
    """Show lists one after another, each settled before the next; then settle the last one."""
    at = 0
    for user_id, items, clicked in shown:
        residual.settle(at)
        residual.served(user_id, items, [0.1] * len(items), at)
        for item_id in items:
            residual.tell(event(user_id, item_id, "impression", at + 1))
        for item_id in clicked:
            residual.tell(event(user_id, item_id, "click", at + SECOND))
        at += gap
    residual.settle(at + SETTLE)
    return residual


def all_scores(residual: Residual) -> list[list[float]]:
    return [residual.scores(user_id, ITEMS).tolist() for user_id in [*USERS, "new"]]


@given(lists)
def test_there_is_no_effect_before_any_example(shown: list[Shown]) -> None:
    residual = Residual(5)
    for n, (user_id, items, clicked) in enumerate(shown):
        residual.served(user_id, items, [0.1] * len(items), n)
        for item_id in clicked:
            residual.tell(event(user_id, item_id, "click", n))
        residual.settle(n)  # nothing was shown long enough ago
    assert not np.any(all_scores(residual))
    assert residual.examples == 0


@given(lists)
def test_the_same_events_in_the_same_order_give_the_same_weights(shown: list[Shown]) -> None:
    first, again = live(Residual(5), shown), live(Residual(5), shown)
    assert all_scores(first) == all_scores(again)
    assert (first.examples, first.loss, first.frozen) == (again.examples, again.loss, again.frozen)
    assert first.examples == sum(len(items) for _, items, _ in shown)


@given(lists, st.integers(1, 40))
def test_when_a_list_is_settled_changes_nothing(shown: list[Shown], every: int) -> None:
    """Lists are learned from in the order in which they were shown, however often the residual is asked to."""
    busy = Residual(5)
    at = 0
    for user_id, items, clicked in shown:
        for _ in range(every):
            busy.settle(at)
        busy.served(user_id, items, [0.1] * len(items), at)
        for item_id in clicked:
            busy.tell(event(user_id, item_id, "click", at + SECOND))
        at += SETTLE
    for _ in range(every):
        busy.settle(at + SETTLE)
    assert all_scores(busy) == all_scores(live(Residual(5), shown))


@given(lists)
def test_no_more_is_held_than_was_said(shown: list[Shown]) -> None:
    residual = live(Residual(5, items=4, users=1), shown)
    assert len(residual) <= 4
    if shown:
        last = shown[-1]
        assert all(np.any(residual.scores("nobody", [item_id])) for item_id in last[1][-4:])  # shown last, so held
        others = [u for u in USERS if u != last[0]]
        assert all(residual.scores(u, ITEMS).tolist() == residual.scores("nobody", ITEMS).tolist() for u in others)


def test_what_is_clicked_goes_up_and_what_is_not_goes_down() -> None:
    residual = live(Residual(2), [(f"u{n}", ["good", "bad"], ["good"]) for n in range(50)])
    good, bad, unknown = residual.scores("new", ["good", "bad", "unknown"]).tolist()
    assert good > 0 > bad
    assert unknown == 0
    assert residual.loss < residual.frozen


def test_a_place_that_gets_few_clicks_is_not_held_against_its_items() -> None:
    """The last place is never clicked, whatever is there; every item is there as often as elsewhere."""
    turns = [ITEMS[n % 3 : n % 3 + 1] + ITEMS[(n + 1) % 3 : (n + 1) % 3 + 1] for n in range(300)]
    residual = live(Residual(2), [(f"u{n}", items, items[:1]) for n, items in enumerate(turns)])
    of_items = residual.scores("new", ITEMS[:3])
    assert float(np.ptp(of_items)) < 0.2


def test_a_click_that_comes_too_late_or_for_another_user_does_not_count() -> None:
    residual = Residual(1)
    residual.served("u", ["a"], [0.5], 0)
    residual.tell(event("v", "a", "click", SECOND))
    residual.settle(SETTLE)
    residual.tell(event("u", "a", "click", SETTLE))
    assert residual.scores("new", ["a"])[0] < 0
    assert residual.loss == pytest.approx(np.log(2))

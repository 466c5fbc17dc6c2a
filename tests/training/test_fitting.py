"""Which candidates a list takes for impressions without a like."""

import numpy as np
import pytest

from bentos.cascade import Ask
from bentos.stages.session import SESSION_S, SETTLED_S
from streams.aggregates import MINUTE, SECOND
from tests.bentos.small import ITEMS, NOW, event, item_matrix, user_values
from training.fitting import passed

MATRIX = item_matrix()


@pytest.mark.parametrize(
    ("ago_s", "counts"), [(SETTLED_S - 1, False), (SETTLED_S, True), (SESSION_S, True), (SESSION_S + 1, False)]
)
def test_passed_over_is_what_this_session_showed_in_vain(ago_s: float, counts: bool) -> None:
    shown = [event(n, "u", f"i{n}", "impression", NOW - int(ago_s * SECOND)) for n in (3, 5, 8)]
    liked = event(99, "u", "i5", "click", NOW - int(min(ago_s, 10.0) * SECOND))
    over = passed(Ask("u", user_values(*shown, liked), MATRIX), np.arange(ITEMS))
    assert np.flatnonzero(over).tolist() == ([3, 8] if counts else [])


def test_a_like_before_it_was_shown_does_not_take_it_back() -> None:
    liked = event(0, "u", "i3", "click", NOW - 3 * MINUTE)
    shown = event(1, "u", "i3", "impression", NOW - 2 * MINUTE)
    over = passed(Ask("u", user_values(liked, shown), MATRIX), np.array([2, 3]))
    assert over.tolist() == [False, True]


def test_without_impressions_nothing_was_passed_over() -> None:
    assert not passed(Ask("u", user_values(event(0, "u", "i3", "click", NOW)), MATRIX), np.arange(ITEMS)).any()

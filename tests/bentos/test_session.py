"""What a session was shown, and what of it was liked, in the order of its next list."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.cascade import Ask
from bentos.inputs import Floats, History
from bentos.stages.session import CLICKED, PRIOR, SESSION_S, SETTLED_S, STRENGTH, tilt
from streams.aggregates import MINUTE, SECOND
from tests.bentos.small import CATEGORIES, ITEMS, NOW, cascade, event, item_matrix, liking, user_values
from training.datasets import Question
from training.evaluation import WHOLE, staged

CASCADE, MATRIX = cascade(), item_matrix()
TASTES = CASCADE.tastes(MATRIX)
SOME = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.booleans()), min_size=1, max_size=20)


def values(shown: list[tuple[int, bool]], ago: int = 2 * MINUTE) -> dict[str, Any]:
    """The values of a user who was shown these so long ago, and clicked some ten seconds later."""
    seen = [event(n, "u", f"i{i}", "impression", NOW - ago) for n, (i, _) in enumerate(shown)]
    liked = [event(99 + n, "u", f"i{i}", "click", NOW - ago + 10 * SECOND) for n, (i, yes) in enumerate(shown) if yes]
    return user_values(*seen, *liked)


def moved(of: dict[str, Any], tastes: Floats = TASTES) -> Floats:
    """What is added to each item's logit."""
    return tilt(of, MATRIX, History.of(of, MATRIX), np.arange(ITEMS), tastes)


def by_category(added: Floats) -> dict[str, float]:
    """The mean of each category."""
    return {name: float(added[n::3].mean()) for n, name in enumerate(CATEGORIES)}


@given(SOME)
def test_it_is_one_step_of_newton_of_a_logistic_regression(shown: list[tuple[int, bool]]) -> None:
    clicked = {i for i, yes in shown if yes}
    shown = list(dict.fromkeys((i, i in clicked) for i, _ in shown))
    places = np.concatenate([MATRIX.categories, TASTES], 1).astype(float)  # each item has one category
    places -= places.mean(0)
    theirs, liked = places[[i for i, _ in shown]], np.array([yes for _, yes in shown])
    curvature = CLICKED * (1 - CLICKED) * theirs.T @ theirs + np.eye(places.shape[1]) / PRIOR
    weights = np.linalg.solve(curvature, theirs.T @ (liked - CLICKED))
    np.testing.assert_allclose(moved(values(shown)), STRENGTH * places @ weights, atol=1e-4)


def test_a_category_shown_in_vain_falls_and_one_that_was_liked_rises() -> None:
    added = by_category(moved(values([(i, i % 3 == 1) for i in range(9)])))
    assert added["comedy"] > 0 > max(added["drama"], added["war"])
    in_vain = by_category(moved(values([(i, False) for i in range(0, 30, 3)])))
    assert in_vain["drama"] < 0 < min(in_vain["comedy"], in_vain["war"])


def test_where_clicks_are_rare_being_passed_over_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    in_vain = values([(i, False) for i in range(0, 30, 3)])
    usual = moved(in_vain)
    monkeypatch.setattr("bentos.stages.session.rate", lambda items: 0.01)
    assert 0 < np.abs(moved(in_vain)).max() < np.abs(usual).max() / 5


@pytest.mark.parametrize("ago", [int(SETTLED_S) * SECOND - 1, int(SESSION_S) * SECOND + 1])
def test_what_is_being_looked_at_and_what_was_long_ago_says_nothing(ago: int) -> None:
    assert not moved(values([(3, False), (4, True)], ago)).any()
    assert moved(values([(3, False), (4, True)], ago // MINUTE * MINUTE or MINUTE)).any()


def test_a_like_before_it_was_shown_is_none_of_the_session() -> None:
    shown = event(0, "u", "i3", "impression", NOW - 2 * MINUTE)
    before = event(1, "u", "i3", "click", NOW - 3 * MINUTE)
    np.testing.assert_array_equal(moved(user_values(shown, before)), moved(user_values(shown)))


def test_a_like_speaks_for_the_last_time_its_item_was_shown() -> None:
    first, again, other = (
        event(n, "u", item, "impression", NOW - ago * MINUTE)
        for n, (item, ago) in enumerate([("i3", 3), ("i3", 2), ("i6", 3)])
    )
    click = event(9, "u", "i3", "click", NOW - MINUTE)
    alike = TASTES.copy()
    alike[6] = alike[3]  # the categories are the same
    twice, once = (moved(user_values(some, again, click), alike) for some in (first, other))
    np.testing.assert_allclose(twice, once, atol=1e-6)


def test_without_impressions_and_of_what_nobody_knows_nothing_moves() -> None:
    assert not moved(liking("i3", "i4")).any()
    assert not moved(values([(77, False)])).any()


def test_the_next_list_is_moved_and_evaluation_asks_the_same() -> None:
    fresh, passed = values([]), values([(i, False) for i in range(0, 30, 3)])
    lists = []
    for of in (fresh, passed):
        served = [pick.item_id for pick in CASCADE.recommend(Ask("u", of, MATRIX)).picks]
        judged, _ = staged(CASCADE)(Question("u", NOW, of, MATRIX, frozenset(), ()))[WHOLE]
        assert served == judged
        lists.append(served)
    assert lists[0] != lists[1]

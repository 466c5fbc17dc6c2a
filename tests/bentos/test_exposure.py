"""Exposure of the long tail: the share that is promised, at every place, and nothing else moved for it."""

import dataclasses
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.answering import Answering
from bentos.bundle import Bundle
from bentos.cascade import Answer, Ask, pinned
from bentos.inputs import ITEM_COLUMNS
from bentos.meters import TAIL
from bentos.stages.exposure import KNOWN, attention, placed, share, tail
from bentos.stages.rules import Boost, Pin, Rules, Which
from freshet.settings import Settings
from tests.bentos.small import ITEMS, NOW, cascade, item_matrix, liking

MATRIX = item_matrix()
CASCADE = cascade(size=40)
"""Every item is a candidate."""

kinds = st.lists(st.booleans(), min_size=1, max_size=40)
leasts = st.integers(0, 100).map(lambda n: n / 100)


def filled(of_tail: list[bool], k: int, least: float) -> list[int]:
    return placed(np.array(of_tail), np.zeros((len(of_tail), 0), np.float32), k, least, None).tolist()


def behind(of_tail: list[bool], least: float) -> list[int]:
    """The prefixes that have less than their share and would have even if the next place were the tail's."""
    weights = [*attention(len(of_tail)).tolist(), 0.0]
    found, given_, total = [], 0.0, 0.0
    for n, one in enumerate(of_tail):
        given_, total = given_ + one * weights[n], total + weights[n]
        if given_ + weights[n + 1] < least * (total + weights[n + 1]) - 1e-9:
            found.append(n)
    return found


def ask(least: float, **more: Any) -> Ask:
    return Ask("u", liking("i3"), MATRIX, 10, rules=Rules(least_tail_exposure=least, **more))


def of_tail(answer: Answer) -> list[bool]:
    return [bool(tail(MATRIX)[pick.row]) for pick in answer.picks]


def ids(answer: Answer) -> list[str]:
    return [pick.item_id for pick in answer.picks]


@given(kinds, st.integers(1, 40), leasts)
def test_every_prefix_has_its_share_while_the_tail_lasts(candidates: list[bool], k: int, least: float) -> None:
    order = filled(candidates, k, least)
    short = behind([candidates[n] for n in order], least)
    if short:
        spent = order[: short[0] + 1]
        assert {n for n, one in enumerate(candidates) if one} <= set(spent), "all of the tail is there already"
    elif sum(candidates):
        assert share(np.array(candidates)[order]) >= least - 1e-9


@given(kinds, st.integers(1, 40), leasts)
def test_nothing_is_lost_and_each_kind_keeps_its_order(candidates: list[bool], k: int, least: float) -> None:
    order = filled(candidates, k, least)
    assert len(order) == len(set(order)) == min(k, len(candidates))
    for kind in (True, False):
        mine = [n for n in order if candidates[n] == kind]
        assert mine == [n for n, one in enumerate(candidates) if one == kind][: len(mine)]


@given(kinds, st.integers(1, 40), leasts)
def test_the_tail_is_lifted_only_where_it_would_fall_behind(candidates: list[bool], k: int, least: float) -> None:
    order = filled(candidates, k, least)
    for place, chosen in enumerate(order):
        best = min(n for n in range(len(candidates)) if n not in order[:place])
        if chosen != best:
            instead = [candidates[n] for n in (*order[:place], best)]
            rest = [True] * (len(order) - place - 1)
            assert candidates[chosen]
            assert place in behind([*instead, *rest], least)


@given(kinds, st.integers(1, 40))
def test_a_dial_of_0_moves_nothing(candidates: list[bool], k: int) -> None:
    assert filled(candidates, k, 0.0) == list(range(min(k, len(candidates))))


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_without_a_share_a_cap_takes_the_first_that_fit(candidates: list[tuple[bool, ...]], k: int, most: int) -> None:
    hot = np.array(candidates, dtype=np.float32)[:, 1:]
    within, others = list[int](), list[int]()
    for n in range(len(hot)):
        (within if (hot[[*within, n]].sum(0) <= most).all() and len(within) < k else others).append(n)
    order = placed(np.array([one[0] for one in candidates]), hot, k, 0.0, most).tolist()
    assert order == [*within, *others][:k]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=16),
    st.integers(1, 12),
    st.integers(1, 4),
    leasts,
)
def test_a_cap_goes_before_the_share(candidates: list[tuple[bool, ...]], k: int, most: int, least: float) -> None:
    hot = np.array(candidates, dtype=np.float32)[:, 1:]
    order = placed(np.array([one[0] for one in candidates]), hot, k, least, most).tolist()
    assert len(order) == len(set(order)) == min(k, len(hot))
    for place, chosen in enumerate(order):
        full = hot[order[:place]].sum(0) >= most
        if hot[chosen][full].any():
            assert all(hot[n][full].any() for n in range(len(hot)) if n not in order[:place]), "nothing else fitted"


def test_by_hand() -> None:
    """Ten of the head are better than all of the tail; weights 1, .63, .5, .43, .39, .36, .33, .32, .3, .29 (4.54)."""
    candidates = [False] * 10 + [True] * 10
    # .1: of five and the sixth .36 / 3.3 would be a tenth, of six and the seventh .33 / 3.64 not: so the sixth;
    # then .36 / 4.54 is not yet a tenth at the end: so the last
    assert filled(candidates, 10, 0.1) == [0, 1, 2, 3, 4, 10, 5, 6, 7, 11]
    # .5: the first as .63 / 1.63 is less than half; then whenever the tail's part falls below half but for one place
    assert filled(candidates, 10, 0.5)[0] == 10
    assert filled(candidates, 10, 1.0) == list(range(10, 20))
    assert filled(candidates, 1, 0.1) == [10], "a place cannot be divided"
    assert share(np.array([True, False, False])) == pytest.approx(1 / (1 + 1 / log2(3) + 0.5))
    assert share(np.array([], dtype=bool)) == 0


def test_the_tail_is_all_but_the_most_liked_fifth() -> None:
    assert [MATRIX.ids[row] for row in np.flatnonzero(~tail(MATRIX))] == [f"i{n}" for n in range(32, ITEMS)]
    values = MATRIX.values.copy()
    values[:, ITEM_COLUMNS.index("likes_ever")] = np.arange(ITEMS) == 7
    few = dataclasses.replace(MATRIX, values=values, kept={}, of_tile={})
    assert tail(few).all(), f"an item with fewer than {KNOWN} likes is new, whatever the others have"


def test_a_dial_of_0_is_the_answer_without_it() -> None:
    plain, off = CASCADE.recommend(dataclasses.replace(ask(0.0), rules=Rules())), CASCADE.recommend(ask(0.0))
    assert plain.picks == off.picks


@pytest.mark.parametrize("least", [0.05, 0.2, 0.4, 0.7, 1.0])
def test_an_answer_gives_the_tail_its_share_under_all_other_rules(least: float) -> None:
    hidden, excluded = frozenset({"i5", "i6"}), frozenset({"i7", "i8"})
    head = Boost(items=frozenset({f"i{n}" for n in range(32, ITEMS)}), by=9.0)
    asked = dataclasses.replace(ask(least, hide=Which(hidden), boost=(head,)), exclude=excluded)
    plain = CASCADE.recommend(dataclasses.replace(asked, rules=Rules(boost=(head,))))
    got = CASCADE.recommend(asked)
    assert share(np.array(of_tail(plain))) < 0.2, "the boost fills the answer with the head, so the test can fail"
    assert behind(of_tail(got), least) == []
    assert share(np.array(of_tail(got))) >= least - 1e-9
    assert not {*ids(got)} & {*hidden, *excluded}
    assert len(got.picks) == 10
    scores = [[p.score for p, one in zip(got.picks, of_tail(got), strict=True) if one == kind] for kind in (0, 1)]
    assert all(a >= b for of in scores for a, b in pairwise(of))


def test_a_pin_of_the_head_stands_whatever_the_share() -> None:
    asked = ask(1.0, pin=(Pin("i39", 1),))
    got = pinned(CASCADE.recommend(asked).picks, asked)
    assert got[0].item_id == "i39"
    assert tail(MATRIX)[[pick.row for pick in got[1:]]].all()


@given(st.integers(0, 1 << 30), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.1, 0.3]))
def test_what_is_explored_leaves_the_tail_its_share(seed: int, explored: float, least: float) -> None:
    values = MATRIX.values.copy()
    values[:, ITEM_COLUMNS.index("age_s")] = 60.0  # all are new, the head too
    items = dataclasses.replace(MATRIX, values=values, kept={}, of_tile={})
    asked = dataclasses.replace(ask(least), items=items, explore=explored, dice=np.random.default_rng(seed))
    got = CASCADE.recommend(asked)
    assert behind(of_tail(got), least) == []
    for draw in got.explored:
        assert tail(items)[draw.rows].all()
        assert draw.propensity.sum() == pytest.approx(1)


async def test_answers_are_counted_by_the_exposure_of_the_tail(tmp_path: Path) -> None:
    answering = Answering(Settings(home=tmp_path))
    answering.items.seen = True
    answering.champion.bundle = Bundle(CASCADE, {}, "7")
    shown, logged = answering._answer(0.0, ask(0.4), 3, NOW, [], "champion", explain=False)
    rows = [MATRIX.index[item.item_id] for item in shown.items]
    assert logged["tail_exposure"] == share(tail(MATRIX)[rows])
    assert logged["tail_exposure"] >= 0.4
    _, none = answering._answer(
        0.0, dataclasses.replace(ask(0.4), exclude=frozenset(MATRIX.ids)), 3, NOW, [], "champion", explain=False
    )
    assert none["tail_exposure"] is None

    def counted() -> tuple[float, float]:
        samples = {s.name: s.value for s in next(iter(TAIL.collect())).samples if s.labels.get("arm") == "champion"}
        return tuple(samples.get(f"freshet_serve_tail_exposure_{name}", 0.0) for name in ("sum", "count"))  # type: ignore[return-value]

    before = counted()
    for tail_exposure in (logged["tail_exposure"], None):
        answering.meters.answer({"total": 1.0}, [], False, tail_exposure)
    assert np.subtract(counted(), before).tolist() == pytest.approx([logged["tail_exposure"], 1])

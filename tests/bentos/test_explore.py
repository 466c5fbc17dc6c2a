"""Exploration: only what is new, with a probability that is really the one it says, learning from clicks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.answering import Answering
from bentos.bundle import Bundle
from bentos.cascade import Answer, Ask, explored, pinned
from bentos.inputs import ITEM_COLUMNS, ItemMatrix
from bentos.responses import encode
from bentos.stages.explore import UNIFORM, explore
from bentos.stages.recall import is_new
from bentos.stages.rules import Pin, Rules
from freshet.settings import Settings
from tests.bentos.small import NOW, cascade, item_matrix, liking
from training.off_policy import Draw

MATRIX = item_matrix()
CASCADE = cascade()


def ask(share: float, seed: int = 0, **more: Any) -> Ask:
    return Ask("u", liking("i3"), MATRIX, 10, explore=share, dice=np.random.default_rng(seed), **more)


def ids(answer: Answer) -> list[str]:
    return [pick.item_id for pick in answer.picks]


def evidence(clicks: dict[int, int], impressions: int) -> ItemMatrix:
    """The matrix with so many impressions of each item, and these clicks."""
    values = MATRIX.values.copy()
    values[:, ITEM_COLUMNS.index("impressions_7d")] = impressions
    values[:, ITEM_COLUMNS.index("clicks_7d")] = [clicks.get(row, 0) for row in range(len(MATRIX))]
    return dataclasses.replace(MATRIX, values=values, kept={}, of_tile={})


def drawn(items: ItemMatrix, seed: int, taken: tuple[int, ...] = ()) -> tuple[npt.NDArray[np.float64], int]:
    """The propensity by row, and the row that was chosen, of one place among 12 rows that ranking thinks alike."""
    rows, likely = np.arange(12), np.full(12, 0.1, np.float32)
    (draw,) = explore(items, rows, likely, np.array(taken, dtype=np.int64), [3], np.random.default_rng(seed))
    out = np.zeros(12)
    out[draw.rows] = draw.propensity
    return out, int(draw.rows[draw.chosen])


def test_a_share_of_none_is_the_plain_answer() -> None:
    plain, none = CASCADE.recommend(ask(0.0)), CASCADE.recommend(dataclasses.replace(ask(0.3), dice=None))
    assert plain.explored == none.explored == []
    assert ids(plain) == ids(none)
    assert all(pick.propensity is None for pick in plain.picks)


@given(st.integers(0, 1 << 30), st.sampled_from([0.1, 0.25, 0.5]))
def test_the_rest_of_the_answer_stays(seed: int, share: float) -> None:
    plain, got = CASCADE.recommend(ask(0.0)), CASCADE.recommend(ask(share, seed))
    places = [draw.position for draw in got.explored]
    assert len(set(ids(got))) == 10
    assert places == list(range(10 - len(places), 10))
    for n, (one, other) in enumerate(zip(plain.picks, got.picks, strict=True)):
        if n in places:
            assert "explore" in other.sources
            assert other.propensity is not None
            assert 0 < other.propensity <= 1
            assert is_new(MATRIX)[other.row]
        else:
            assert one == other
    assert not {got.picks[n].item_id for n in places} & set(ids(plain))


def test_half_a_place_is_every_other_answer() -> None:
    counts = [len(CASCADE.recommend(ask(0.05, seed)).explored) for seed in range(300)]
    assert set(counts) == {0, 1}
    assert 0.4 < np.mean(counts) < 0.6


def test_items_come_as_often_as_their_propensity_says() -> None:
    """A wrong propensity would make every estimate from the log wrong."""
    items = evidence({0: 12, 1: 6}, 40)
    said, came = np.zeros(12), np.zeros(12)
    for seed in range(3_000):
        propensity, chosen = drawn(items, seed)
        assert propensity.sum() == pytest.approx(1)
        assert propensity.min() >= UNIFORM / 12 - 1e-12
        said += propensity
        came[chosen] += 1
    error = np.sqrt(np.maximum(said * (1 - said / 3_000), 1))
    assert (np.abs(came - said) < 4.5 * error).all()


def test_clicks_raise_and_silence_lowers_an_items_chance() -> None:
    before = np.mean([drawn(evidence({}, 0), seed)[0] for seed in range(100)], axis=0)
    after = np.mean([drawn(evidence({0: 20}, 60), seed)[0] for seed in range(100)], axis=0)
    assert after[0] > 3 * before[0]
    assert (after[1:] < before[1:]).all()


def test_what_the_answer_has_is_not_explored_and_nothing_left_is_no_draw() -> None:
    assert drawn(MATRIX, 0, tuple(range(11)))[1] == 11
    everything = np.arange(len(MATRIX))
    rows, likely = np.arange(12), np.full(12, 0.1, np.float32)
    assert explore(MATRIX, rows, likely, everything, [3], np.random.default_rng(0)) == []


def test_a_house_cap_holds_for_what_is_explored() -> None:
    rules = Rules(most_per_category=4)
    for seed in range(50):
        got = CASCADE.recommend(ask(0.3, seed, rules=rules))
        assert MATRIX.categories[[pick.row for pick in got.picks]].sum(0).max() <= 4


def test_an_answer_of_one_is_not_explored() -> None:
    assert explored(ask(0.5), np.arange(12), np.full(12, 0.1, np.float32), np.array([1])) == []


async def test_the_log_holds_all_that_judging_needs(tmp_path: Path) -> None:
    answering = Answering(Settings(home=tmp_path, explore_share=0.5))
    answering.items.seen = True
    answering.champion.bundle = Bundle(CASCADE, {}, "7")
    shown, logged = answering._answer(0.0, ask(0.5), 3, NOW, [], "champion", explain=True)
    encoded = json.loads(encode(logged))
    draws = [msgspec.convert(draw, Draw) for draw in encoded["explored"]]
    assert len(draws) >= 4
    for place, draw in zip((d["position"] for d in encoded["explored"]), draws, strict=True):
        item = shown.items[place]
        assert draw.item_ids[draw.chosen] == item.item_id == encoded["items"][place]["item_id"]
        assert item.propensity == pytest.approx(draw.propensity[draw.chosen], abs=1e-6)
        assert "explore" in item.sources
        assert sum(draw.propensity) == pytest.approx(1)
    plain, logged = answering._answer(0.0, ask(0.5), 3, NOW, [], "popular", explain=True)
    assert logged["explored"] == []
    assert all(item.propensity is None for item in plain.items)


@given(st.integers(0, 1 << 30))
def test_pins_leave_what_is_explored_in_the_answer(seed: int) -> None:
    pins = Pin("i30", 1), Pin("i31", 1)
    question = ask(0.2, seed, rules=Rules(pin=pins))
    picks = CASCADE.recommend(question).picks
    explored = {pick.item_id for pick in picks if pick.propensity is not None} - {pin.item_id for pin in pins}
    assert explored <= {pick.item_id for pick in pinned(picks, question)}


async def test_a_pin_moves_what_is_explored_and_the_log_knows(tmp_path: Path) -> None:
    answering = Answering(Settings(home=tmp_path))
    answering.items.seen = True
    answering.champion.bundle = Bundle(CASCADE, {}, "7")
    rules = Rules(pin=tuple(Pin(f"i{n}", 1) for n in (30, 31, 32, 33, 34, 35, 36, 37)))
    put_out = 0
    for seed in range(40):
        shown, logged = answering._answer(0.0, ask(0.5, seed, rules=rules), 3, NOW, [], "champion", explain=False)
        explored = [n for n, item in enumerate(shown.items) if item.propensity is not None]
        assert sorted(draw["position"] for draw in logged["explored"]) == explored
        for draw in logged["explored"]:
            assert draw["item_ids"][draw["chosen"]] == shown.items[draw["position"]].item_id
        put_out += len(explored) < 5
    assert put_out, "eight pins leave little room, so the test can fail"

"""Intervals, edge cases, and what the gate lets through."""

import random

import numpy as np
import pytest

from streams.catalogue import Item
from tests.bentos.small import CATEGORIES, ITEMS, cascade
from training import edge_cases
from training.gate import FLOOR, LEAST, Rival, judge
from training.intervals import Bootstrap, Interval

NONE = Rival(None, 0, "there is none yet")
BETTER, WORSE, LIKE = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01), Interval(-0.001, -0.01, 0.01)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Users differ, their questions do not: an interval over questions would be far too narrow."""
    chance, held = random.Random(1), 0
    for _ in range(200):
        tastes = [chance.gauss(0, 1) for _ in range(60)]
        users = [f"u{n % 60}" for n in range(600)]
        found = Bootstrap(users).interval([tastes[n % 60] for n in range(600)])
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(size=500) * 10
    found = Bootstrap([f"u{n}" for n in range(500)]).difference((hard + 0.1).tolist(), hard.tolist())
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_what_is_not_clearly_worse_passes() -> None:
    assert judge([], BETTER, NONE).reasons == []
    assert judge([], BETTER, NONE).champion == "not compared with the champion: there is none yet"
    assert judge([], LIKE, Rival(LIKE, LEAST, "")).reasons == []
    few = judge([], BETTER, Rival(WORSE, LEAST - 1, ""))
    assert (few.reasons, few.over_champion) == ([], None)
    assert "199 questions are new to both" in few.champion


def test_what_is_clearly_worse_is_refused_with_the_reason() -> None:
    (reason,) = judge([], WORSE, NONE).reasons
    assert reason == f"it is worse than {FLOOR} by 0.0200 NDCG@10 (95%: 0.0100 to 0.0300)"
    (reason,) = judge([], BETTER, Rival(WORSE, LEAST, "")).reasons
    assert "worse than the champion" in reason
    assert judge(["one event: KeyError"], BETTER, NONE).reasons == ["an edge case fails: one event: KeyError"]
    nan = Interval(float("nan"), float("nan"), float("nan"))
    assert len(judge([], nan, Rival(nan, LEAST, "")).reasons) == 2, "what is no number is no proof of quality"


def test_an_unfitted_cascade_answers_every_edge_case_and_one_without_candidates_is_caught() -> None:
    known = [f"i{n}" for n in range(ITEMS)]
    catalogue = {i: Item(i, i, (CATEGORIES[n % 3],)) for n, i in enumerate(known)}
    assert edge_cases.failures(cascade(), known, catalogue) == []
    assert len(edge_cases.failures(cascade(size=3), known, catalogue)) == 5, "all but the user who has liked everything"


def test_a_cascade_that_fails_is_caught_with_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = cascade()
    object.__setattr__(broken, "vectors", broken.vectors[:1])
    failures = edge_cases.failures(broken, [f"i{n}" for n in range(ITEMS)], {})
    assert failures[0].startswith("an empty history: IndexError")

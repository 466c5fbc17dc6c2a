"""The metrics against numbers worked out by hand, and the rules for ties and for what a user has seen."""

from collections.abc import Sequence
from math import log2
from typing import Any

import numpy as np
import pytest

from bentos.inputs import ITEM_COLUMNS, ItemTable
from feature_repo.features import user as user_profile
from streams.catalogue import Item
from training.datasets import Question
from training.evaluation import WHOLE, Result, Scoreboard, ranked
from training.rankers import better, ndcg
from training.shown import Shown
from training.slices import slices


def question(*positives: str, seen: tuple[str, ...] = (), items: int = 30) -> Question:
    table = ItemTable()
    for n in range(items):
        table.describe(Item(f"i{n}", ""))
    return Question("u", 0, user_profile.values(None, 0), table.at(0), frozenset(seen), positives)


def always(*best: int) -> Any:
    return lambda _: {"m": ([f"i{n}" for n in best], 0.001)}


def asked(models: Sequence[Any], questions: Sequence[Question]) -> Scoreboard:
    board = Scoreboard("static", models)
    for question in questions:
        board.put(question)
    return board


def result(model: Any, *questions: Question) -> Result:
    board = asked([model], questions)
    return board.results({"m": 1.5}, {"m": 2.5})[0]


@pytest.mark.parametrize("place", [1, 2, 3, 10])
def test_one_positive_at_a_place(place: int) -> None:
    got = result(always(*range(20)), question(f"i{place - 1}")).metrics
    assert got["NDCG@10"] == pytest.approx(1 / log2(place + 1))  # place 1 gives 1, place 2 gives 0.6309...
    assert got["NDCG@20"] == pytest.approx(1 / log2(place + 1))
    assert got["HR@10"] == got["HR@20"] == got["Recall@20"] == 1


def test_just_beyond_ten_and_twenty() -> None:
    eleventh = result(always(*range(20)), question("i10")).metrics
    assert (eleventh["HR@10"], eleventh["NDCG@10"], eleventh["HR@20"]) == (0, 0, 1)
    assert eleventh["NDCG@20"] == pytest.approx(1 / log2(12))
    assert set(result(always(*range(20)), question("i25")).metrics.values()) == {0}


def test_several_positives() -> None:
    got = result(always(0, 1, 2, 3, 4), question("i0", "i3", "i29")).metrics
    best = 1 + 1 / log2(3) + 1 / log2(4)
    assert got["NDCG@10"] == pytest.approx((1 + 1 / log2(5)) / best)
    assert got["Recall@20"] == pytest.approx(2 / 3)
    assert got["HR@10"] == 1


def test_more_positives_than_places_can_still_be_perfect() -> None:
    got = result(always(*range(20)), question(*(f"i{n}" for n in range(25)))).metrics
    assert got["NDCG@10"] == pytest.approx(1)
    assert got["Recall@20"] == pytest.approx(20 / 25)


def test_the_mean_is_over_all_questions_even_those_without_an_answer() -> None:
    def knows_one(asked_for: Question) -> Any:
        return {"m": (["i0"] if "i0" in asked_for.positives else [], 0.0)}

    board = asked([knows_one], [question("i0"), question("i1")])
    assert board.results({}, {})[0].metrics["NDCG@10"] == pytest.approx(0.5)


def test_every_other_measure_by_hand() -> None:
    """Right at places 3 and 6, one of three missed."""
    got = result(always(*range(20)), question("i2", "i5", "i29")).metrics
    assert (got["HR@5"], got["Recall@5"], got["Recall@10"]) == (1, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert got["NDCG@5"] == pytest.approx(0.5 / (1 + 1 / log2(3) + 0.5))
    assert got["MRR@20"] == pytest.approx(1 / 3)
    assert got["MAP@20"] == pytest.approx((1 / 3 + 2 / 6) / 3)


def test_coverage_is_the_share_of_items_that_were_shown() -> None:
    shown = result(always(0, 1, 2), question("i0"), question("i1")).beyond
    assert shown["coverage"] == pytest.approx(3 / 30)
    assert shown["Gini"] == pytest.approx(27 / 30), "three of thirty share all of it"


def test_gini_is_0_when_every_item_is_shown_alike() -> None:
    assert result(always(*range(20)), question("i0", items=20)).beyond["Gini"] == pytest.approx(0)


def test_novelty_likes_and_diversity_by_hand() -> None:
    table = ItemTable()
    for name, categories in (("a", ("x",)), ("b", ("x", "y")), ("c", ("z",))):
        table.describe(Item(name, "", categories))
    items = table.at(0)
    items.values[:, ITEM_COLUMNS.index("likes_ever")] = [6, 2, 0]
    shown = Shown()
    shown.add(items, ["a", "b", "c"])
    got = shown.measures(3)
    assert got["likes"] == pytest.approx(8 / 3)
    assert got["novelty"] == pytest.approx(-(log2(7 / 11) + log2(3 / 11) + log2(1 / 11)) / 3)
    assert got["diversity"] == pytest.approx(2 / 3), "a and b share a category, c shares none"
    assert got["tail"] == pytest.approx((1 / log2(3) + 1 / 2) / (1 + 1 / log2(3) + 1 / 2)), "a is the head of three"


def test_slices_say_who_asks_and_for_what() -> None:
    values = user_profile.values(None, 0) | {"likes_ever": 5, "last_seen_s": 3_600.0}
    new = question("i0")
    assert slices(new) == ["user: new", "gap: a day or more", "item: new"]
    known = Question("u", 0, values, new.items, frozenset(), ("i0", "i1"))
    assert slices(known) == ["user: light", "gap: below a day"], "several right answers fall into no slice of items"


def test_the_cascade_is_compared_with_every_model_question_by_question() -> None:
    def both(asked_for: Question) -> Any:
        right = list(asked_for.positives)
        return {WHOLE: (right, 0.0), "m": (right if asked_for.positives[0] != "i0" else [], 0.0)}

    board = asked([both], [question(f"i{n % 4}") for n in range(40)])
    ours, theirs = board.results({}, {})
    assert ours.behind is None
    assert theirs.behind is not None
    assert theirs.behind.mean == pytest.approx(10 / 40)
    assert board.difference("m", WHOLE).mean == pytest.approx(-10 / 40)
    assert theirs.slices["user: new"] == (40, pytest.approx(30 / 40))


def test_no_question_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no question"):
        asked([always(1)], []).results({}, {})


def test_equal_scores_keep_the_order_of_the_catalogue() -> None:
    model = ranked("m", lambda q: np.zeros(len(q.items), np.float32))
    assert model(question("i0"))["m"][0][:4] == ["i0", "i1", "i2", "i3"]


def test_what_was_seen_is_left_out() -> None:
    model = ranked("m", lambda q: -np.arange(len(q.items), dtype=np.float32))
    assert model(question("i9", seen=("i0", "i2", "never heard of")))["m"][0][:3] == ["i1", "i3", "i4"]


def test_all_items_compete() -> None:
    """No sampled metric: a positive that 20 of 3,000 items beat is a miss."""
    model = ranked("m", lambda q: np.arange(len(q.items), dtype=np.float32))
    assert result(model, question("i2979", items=3_000)).metrics["HR@20"] == 0
    assert result(model, question("i2980", items=3_000)).metrics["HR@20"] == 1


def test_ranking_stays_unless_another_order_is_clearly_better() -> None:
    rng = np.random.default_rng(1)
    plain = rng.random(1_000)
    seemingly, clearly = plain + rng.normal(0.002, 0.2, 1_000), plain + rng.normal(0.05, 0.2, 1_000)
    assert better({"DIN": plain, "other": seemingly + (0.001 - (seemingly - plain).mean())}, "DIN") == "DIN"
    assert better({"DIN": plain, "other": clearly}, "DIN") == "other"
    assert better({"DIN": plain, "other": plain - 1}, "DIN") == "DIN"


def test_the_metric_that_chooses_between_rerankers_agrees() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, labels = rng.normal(size=30).astype(np.float32), (rng.random(30) < 0.2).astype(np.float32)
        positives = tuple(f"i{n}" for n in np.flatnonzero(labels))
        if positives:
            order = np.argsort(-scores)[:20]
            full = result(always(*order), question(*positives)).metrics
            assert ndcg(labels, scores) == pytest.approx(full["NDCG@10"])

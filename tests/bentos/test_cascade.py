"""What holds of every answer of the cascade, whatever its models learned."""

from dataclasses import replace
from types import FunctionType
from typing import Any
from weakref import ref

import numpy as np
import pytest

from bentos.cascade import Answer, Ask, popular
from bentos.inputs import ITEM_COLUMNS, Floats, History, candidate_rows, input_names
from bentos.stages.rank import rank
from bentos.stages.recall import SOURCES
from tests.bentos.small import CATEGORIES, ITEMS, NOW, cascade, event, item_matrix, liking, user_values

CASCADE = cascade()
MATRIX = item_matrix()


def answer(values: dict[str, Any], k: int = 10, **more: Any) -> Answer:
    return CASCADE.recommend(Ask("u", values, MATRIX, k, **more))


def ids(given: Answer) -> list[str]:
    return [pick.item_id for pick in given.picks]


@pytest.mark.parametrize("k", [1, 7, 20])
def test_as_many_as_asked_for_and_each_once(k: int) -> None:
    got = ids(answer(liking("i3", "i4"), k))
    assert len(got) == k == len(set(got))


def test_never_more_than_there_are() -> None:
    assert len(ids(answer(liking("i3"), k=100))) == 20  # as many as are ranked


def test_the_same_question_has_the_same_answer() -> None:
    first, again = (answer(liking("i3", "i9", "i12")) for _ in range(2))
    assert first.picks == again.picks


def test_ranking_is_not_told_how_often_an_item_was_shown() -> None:
    values, some = liking("i3", "i9"), np.arange(ITEMS)
    tastes = CASCADE.taste.vectors(MATRIX, CASCADE.recall.known(MATRIX))
    recalled = np.zeros((ITEMS, len(SOURCES)), np.float32)

    def rows(column: str) -> Floats:
        more = MATRIX.values.copy()
        more[:, ITEM_COLUMNS.index(column)] += 100.0
        changed = replace(MATRIX, values=more, of_tile={})
        return candidate_rows(values, changed, History.of(values, changed), some, tastes, recalled)

    assert rows("impressions_24h").shape == (ITEMS, len(input_names(SOURCES)))
    assert (rows("impressions_24h") == rows("impressions_7d")).all()
    assert (rows("impressions_24h") != rows("clicks_7d")).any(1).all()


def test_best_first() -> None:
    scores = [pick.score for pick in answer(liking("i3", "i9")).picks]
    assert scores == sorted(scores, reverse=True)


def test_what_was_bought_never_comes_back() -> None:
    bought = tuple(f"i{n}" for n in range(30))
    values = liking(*bought, kind="purchase")
    for repeat in (False, True):
        assert set(ids(answer(values, k=40, repeat=repeat))) == {f"i{n}" for n in range(30, ITEMS)}


def test_what_was_liked_comes_back_only_where_it_may() -> None:
    liked = tuple(f"i{n}" for n in range(30))
    assert not set(ids(answer(liking(*liked), k=40))) & set(liked)
    assert set(ids(answer(liking(*liked), k=40, repeat=True))) & set(liked)


def test_what_is_excluded_does_not_come() -> None:
    best = ids(answer(liking("i3")))[:5]
    assert not set(ids(answer(liking("i3"), exclude=frozenset(best)))) & set(best)


def test_only_the_categories_asked_for() -> None:
    got = answer(liking("i3"), categories=frozenset({"war"}))
    assert got.picks
    assert all(int(pick.item_id[1:]) % 3 == CATEGORIES.index("war") for pick in got.picks)


def test_a_category_nobody_knows_gives_nothing() -> None:
    assert answer(liking("i3"), categories=frozenset({"opera"})).picks == []


def test_a_new_user_gets_an_answer() -> None:
    got = answer(user_values())
    assert len(got.picks) == 10
    assert all(pick.because.kind in ("trending", "new") for pick in got.picks)


def test_one_event_changes_the_answer_of_a_new_user() -> None:
    assert ids(answer(user_values())) != ids(answer(user_values(event(0, "u", "i7", "click", NOW - 1_000_000))))


def test_a_history_of_items_that_nobody_knows_is_as_no_history() -> None:
    unknown = user_values(event(0, "u", "i99", "click", NOW - 1_000_000))
    assert len(answer(unknown).picks) == 10


def test_an_item_that_came_after_the_training_can_be_recommended() -> None:
    matrix = item_matrix(extra=("i999",))
    got = CASCADE.recommend(Ask("u", liking("i3"), matrix, 20, exclude=frozenset(f"i{n}" for n in range(ITEMS - 5))))
    assert "i999" in ids(got)


def test_a_matrix_without_items_gives_nothing() -> None:
    from bentos.inputs import ItemTable

    empty = ItemTable().at(0)
    assert CASCADE.recommend(Ask("u", user_values(), empty)).picks == []
    assert popular(Ask("u", user_values(), empty)) == []


def test_because_names_the_liked_item_with_the_largest_attention() -> None:
    values = liking("i3", "i4", "i10", "i11", "i12")
    ask = Ask("u", values, MATRIX, 20)
    f = CASCADE.features(ask)
    attention = rank(CASCADE.din, f.inputs, f.vectors, f.history, f.ages_s).attention
    place = {int(row): n for n, row in enumerate(f.rows)}
    for pick in CASCADE.recommend(ask).picks:
        weights = attention[place[pick.row]]
        if pick.because.kind == "history":
            assert pick.because.item_id == values["history"][int(weights.argmax())]
            assert pick.because.weight == pytest.approx(float(weights.max()))
        else:  # attention that is spread evenly explains nothing, so it is not claimed to
            assert weights.max() * len(weights) < 1.5


def test_a_history_of_one_is_the_reason() -> None:
    assert {p.because.item_id for p in answer(liking("i5")).picks} == {"i5"}


def test_popular_is_what_is_liked_lately_without_what_is_barred() -> None:
    got = popular(Ask("u", liking("i39"), MATRIX, 3, exclude=frozenset({"i38"})))
    assert [pick.item_id for pick in got] == ["i37", "i36", "i35"]


def test_diversity_brings_more_categories_to_the_top() -> None:
    varied, plain = cascade(diversity=5.0), cascade()
    values = liking("i3", "i6")

    def kinds(of: Any) -> int:
        top = of.recommend(Ask("u", values, MATRIX, 3)).picks
        return len({int(p.item_id[1:]) % 3 for p in top})

    assert kinds(varied) == 3
    assert kinds(varied) >= kinds(plain)


def test_scores_of_a_candidate_do_not_depend_on_the_others() -> None:
    values = liking("i3", "i4")
    all_of = {p.item_id: p.score for p in answer(values, k=20).picks}
    fewer = answer(values, k=20, exclude=frozenset(list(all_of)[:3]))
    shared = [(p.score, all_of[p.item_id]) for p in fewer.picks if p.item_id in all_of]
    assert len(shared) >= 10
    np.testing.assert_allclose(*zip(*shared, strict=True), rtol=1e-5)


def test_once_the_time_is_up_what_is_there_is_the_answer() -> None:
    ask = Ask("u", liking("i3", "i7"), item_matrix(), 5)
    late = iter([True])
    by_recall = cascade().recommend(ask, lambda: next(late))
    assert by_recall.skipped == "rank"
    features = cascade().features(ask)
    assert [p.row for p in by_recall.picks] == features.rows[:5].tolist()
    between = iter([False, True])
    by_rank = cascade().recommend(ask, lambda: next(between))
    assert by_rank.skipped == "rerank"
    scores = [p.score for p in by_rank.picks]
    assert scores == sorted(scores, reverse=True)
    assert cascade().recommend(ask).skipped is None
    assert len({p.item_id for p in by_recall.picks}) == len({p.item_id for p in by_rank.picks}) == 5


def test_a_bundle_that_was_replaced_leaves_nothing_in_the_items() -> None:
    matrix, replaced = item_matrix(), cascade()
    replaced.recommend(Ask("u", liking("i3"), matrix, 5))
    gone = ref(replaced)
    assert replaced in matrix.kept
    del replaced
    assert gone() is None
    assert all(isinstance(owner, FunctionType) for owner in matrix.kept), "what is everyone's stays"

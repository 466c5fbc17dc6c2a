"""What is said of an item puts it into recall before anyone has liked it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.cascade import Ask
from bentos.inputs import History
from bentos.stages.content import BUCKETS, WORDS, Tower, buckets, features
from bentos.stages.recall import SOURCES, LightGCN
from bentos.taste import unit
from streams.catalogue import Item
from tests.bentos.small import DIM, cascade, item_matrix, liking
from training import content

LIGHTGCN = SOURCES.index("lightgcn")


def test_a_category_is_not_the_word_of_the_same_letters_and_case_and_punctuation_do_not_count() -> None:
    assert buckets(Item("a", "War!")) == buckets(Item("b", "war"))
    assert not buckets(Item("a", "war")) & buckets(Item("a", "", ("war",)))
    assert buckets(Item("a", "Star Wars", ("war",))) == buckets(Item("a", "wars", ("war",), description="(star)"))
    assert len(buckets(Item("a", " ".join(map(str, range(1_000)))))) <= WORDS
    assert features([None, Item("a", "")]).nnz == 0


@given(st.lists(st.one_of(st.none(), st.builds(Item, st.text(min_size=1), st.text(max_size=40))), max_size=8))
def test_a_vector_is_the_sum_of_its_buckets_rows(items: list[Item | None]) -> None:
    weights = np.random.default_rng(1).integers(-9, 9, (BUCKETS, 3)).astype(np.float32)
    made = Tower(weights).vectors(items)
    for vector, item in zip(made, items, strict=True):
        want = np.zeros(3) if item is None else weights[sorted(buckets(item))].sum(0)
        assert vector.tolist() == want.tolist()


def test_an_item_that_the_bundle_does_not_know_is_where_its_content_puts_it() -> None:
    made, matrix = cascade(), item_matrix(extra=("i999",))
    row, user = matrix.index["i999"], liking("i3", "i20")
    history = History.of(user, matrix)
    graph = made.recall.graph(matrix)
    np.testing.assert_array_equal(graph.items[row], made.recall.tower.vectors([matrix.described[row]])[0])
    np.testing.assert_array_equal(graph.items[:40], made.recall.lightgcn.items)
    score = made.recall.scores(user, matrix, history)[LIGHTGCN].dense(len(matrix))[row]
    want = graph.items[row] @ graph.user(history.rows, np.ones(2, np.float32))
    assert score == pytest.approx(want, rel=1e-5)
    assert score != 0


def test_liking_only_such_an_item_moves_recall() -> None:
    made, matrix = cascade(), item_matrix(extra=("i999",))
    user = liking("i999")
    scores = made.recall.scores(user, matrix, History.of(user, matrix))[LIGHTGCN].dense(len(matrix))
    assert (scores != 0).all()
    assert len(made.recommend(Ask("u", user, matrix, 5)).picks) == 5


def test_ranking_sees_directions_only() -> None:
    made, matrix = cascade(), item_matrix(extra=("i999",))
    np.testing.assert_allclose(np.linalg.norm(made.item_vectors(matrix), axis=1), 1, rtol=1e-5)
    bare = replace(made, tower=Tower(np.zeros((BUCKETS, DIM), np.float32)))
    assert not bare.item_vectors(matrix)[matrix.index["i999"]].any(), "nothing is known of it"


def planted(rng: np.random.Generator) -> tuple[list[Item], np.ndarray]:
    """2,000 items of five words of forty each; an item's vector is the sum of its words'."""
    words = rng.normal(size=(40, 8)).astype(np.float32)
    of = [rng.choice(40, 5, replace=False) for _ in range(2_000)]
    return [Item(f"i{n}", " ".join(f"w{w}" for w in some)) for n, some in enumerate(of)], np.stack(
        [words[some].sum(0) for some in of]
    )


def test_what_nobody_liked_is_found_by_its_words_and_what_many_liked_stays() -> None:
    rng = np.random.default_rng(3)
    items, truth = planted(rng)
    likes = np.where(np.arange(2_000) < 1_500, 10_000.0, 0.0)
    learned = np.where(likes[:, None] > 0, truth, rng.normal(size=truth.shape)).astype(np.float32)
    graph, tower = content.fit(LightGCN(learned, likes.astype(np.float32)), likes, features(items))
    near = (unit(graph.items) * unit(truth.astype(np.float32))).sum(1)
    assert near[:1_500].min() > 0.99
    assert near[1_500:].min() > 0.8
    chance = (unit(learned) * unit(truth.astype(np.float32))).sum(1)[1_500:]
    assert chance.mean() < 0.3, "the test can fail"
    np.testing.assert_allclose(tower.vectors(items)[1_500:], graph.items[1_500:], rtol=1e-4)


def test_without_content_few_likes_count_for_less() -> None:
    graph = LightGCN(np.ones((3, 4), np.float32), np.ones(3, np.float32))
    fitted, tower = content.fit(graph, np.array([0.0, content.PRIOR, 3 * content.PRIOR]), features([None] * 3))
    assert fitted.items[:, 0].tolist() == [0.0, 0.5, 0.75]
    assert not tower.weights.any()

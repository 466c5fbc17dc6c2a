"""Taste as an input of ranking: the cosine of a candidate and all that was liked and viewed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.cascade import Ask
from bentos.inputs import Floats, ItemMatrix, input_names
from bentos.stages.recall import SOURCES
from bentos.taste import Taste, unit
from tests.bentos.small import ITEMS, NOW, cascade, event, item_matrix, user_values

CASCADE, MATRIX = cascade(), item_matrix(extra=("i999",))
COLUMN = input_names(SOURCES).index("taste")
SOME = st.lists(st.tuples(st.sampled_from(["view", "click"]), st.integers(0, ITEMS - 1)), min_size=1, max_size=20)


def values(did: list[tuple[str, int]]) -> dict[str, Any]:
    """The values of a user who did these, a minute apart."""
    return user_values(*(event(n, "u", f"i{i}", kind, NOW - (n + 1) * 60_000_000) for n, (kind, i) in enumerate(did)))


def tastes(of: dict[str, Any], items: ItemMatrix = MATRIX) -> dict[int, float]:
    """What ranking is told of each candidate, by row."""
    f = CASCADE.features(Ask("u", of, items, repeat=True))
    return dict(zip(f.rows.tolist(), f.inputs[:, COLUMN].tolist(), strict=True))


@given(SOME)
def test_it_is_the_cosine_with_the_sum_of_the_vectors(did: list[tuple[str, int]]) -> None:
    vectors = CASCADE.taste.items.astype(float)
    mine = vectors[[i for _, i in did]].sum(0)
    for row, cosine in tastes(values(did)).items():
        if row < ITEMS:
            assert cosine == pytest.approx(vectors[row] @ mine / np.linalg.norm(mine), abs=1e-4)


@given(SOME, st.randoms())
def test_neither_order_nor_repetition_matters_nor_what_nobody_knows(did: list[tuple[str, int]], dice: Any) -> None:
    other = [*did, *did]
    dice.shuffle(other)
    first, second = tastes(values(did)), tastes(values([("view", 77), *other]))
    shared = first.keys() & second.keys()
    assert {row: first[row] for row in shared} == pytest.approx({row: second[row] for row in shared}, abs=1e-4)


@pytest.mark.parametrize("did", [[], [("view", 77)], [("click", 77)]])
def test_without_anything_known_there_is_no_taste(did: list[tuple[str, int]]) -> None:
    assert set(tastes(values(did)).values()) == {0.0}


def test_a_view_moves_the_answer() -> None:
    before, after = values([("click", 3)]), values([("click", 3), ("view", 20)])
    scores = [CASCADE.recommend(Ask("u", of, MATRIX)).picks for of in (before, after)]
    same = {pick.item_id: pick.score for pick in scores[0]}
    assert any(abs(same[pick.item_id] - pick.score) > 1e-4 for pick in scores[1] if pick.item_id in same)


def test_an_item_without_a_place_has_that_of_its_categories() -> None:
    vectors = CASCADE.taste.vectors(MATRIX, CASCADE.recall.known(MATRIX))
    row = MATRIX.index["i999"]
    alike = [n for n in range(ITEMS) if MATRIX.categories[n] @ MATRIX.categories[row]]
    np.testing.assert_allclose(vectors[row], unit(vectors[alike].mean(0)), rtol=1e-4)
    np.testing.assert_array_equal(np.delete(vectors, row, 0), CASCADE.taste.items)


def test_without_categories_an_unknown_item_has_none() -> None:
    nothing: Floats = np.zeros((len(MATRIX), 0), np.float32)
    bare = replace(MATRIX, category_names=(), categories=nothing, kept={}, of_tile={})
    assert not CASCADE.taste.vectors(bare, CASCADE.recall.known(bare))[MATRIX.index["i999"]].any()
    assert not Taste(np.zeros((ITEMS, 4), np.float32)).vectors(MATRIX, CASCADE.recall.known(MATRIX)).any()

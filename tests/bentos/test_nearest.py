"""The best products found by bytes are those that all products name."""

from importlib import import_module
from pathlib import Path
from sysconfig import get_path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.inputs import Floats
from bentos.stages.nearest import BLOCK, CHUNK, SAMPLE, Nearest
from bentos.stages.nearest import products as of_rows
from bentos.stages.recall import LightGCN, Products, Scores, of_each

compiled = pytest.mark.skipif(not Nearest.usable, reason="not built, or no processor for it")


@pytest.mark.skipif(not Path(get_path("include"), "Python.h").exists(), reason="Python has no headers here")
def test_where_python_has_headers_the_scan_is_compiled() -> None:
    """Or every test of it would be skipped without a word. Whether this processor can do it, it says itself."""
    assert Nearest.usable == import_module("bentos.stages.scan").USABLE


def made(seed: int, n: int, d: int) -> tuple[Floats, Floats, np.random.Generator]:
    """Rows whose lengths differ a thousandfold, some of them 0, some twice; and a vector."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)) * rng.lognormal(0, 2, size=(n, 1)) * (rng.random((n, 1)) > 0.05)
    vectors[n // 2 :: 7] = vectors[0]
    return vectors.astype(np.float32), (rng.normal(size=d) * 10.0 ** rng.integers(-4, 4)).astype(np.float32), rng


@compiled
@given(
    seed=st.integers(0, 1 << 32), n=st.integers(1, 3 * SAMPLE * BLOCK), d=st.integers(1, 70), size=st.integers(1, 40)
)
def test_the_best_that_are_allowed_are_among_the_rows_that_bytes_leave(seed: int, n: int, d: int, size: int) -> None:
    vectors, vector, rng = made(seed, n, d)
    allowed = rng.random(n) < rng.random()
    rows, found = Nearest(vectors).best(vector, allowed, size)
    assert allowed[rows].all()
    assert (np.diff(rows) > 0).all()
    products = vectors @ vector
    good = [row for row in np.argsort(-products, kind="stable") if allowed[row] and products[row] > 0]
    np.testing.assert_array_equal(found, of_rows(vectors, rows, vector))
    assert {row for row in good if products[row] >= products[good[:size][-1]]} <= set(rows.tolist())


@compiled
def test_bytes_leave_few_of_many_rows() -> None:
    vectors, vector, rng = made(1, CHUNK + 100, 64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    near = Nearest(vectors)
    assert len(near.best(vector, np.ones(len(vectors), bool), 60)[0]) < 200
    last = np.zeros(len(vectors), bool)
    last[-1] = True
    mine = vectors[-1] + rng.normal(0, 1e-3, 64).astype(np.float32)
    assert near.best(mine, last, 60)[0].tolist() == [len(vectors) - 1]


@compiled
def test_nothing_is_near_to_a_vector_of_zeros_or_where_nothing_is_allowed() -> None:
    vectors, vector, _ = made(2, 100, 8)
    near = Nearest(vectors)
    assert near.best(np.zeros(8, np.float32), np.ones(100, bool), 5)[0].tolist() == []
    assert near.best(vector, np.zeros(100, bool), 5)[0].tolist() == []


@pytest.mark.parametrize("usable", [pytest.param(True, marks=compiled), False])
@given(seed=st.integers(0, 1 << 32), n=st.integers(1, 400), size=st.integers(1, 40))
def test_lightgcn_names_the_same_items_with_and_without_bytes(usable: bool, seed: int, n: int, size: int) -> None:
    vectors, vector, rng = made(seed, n, 16)
    allowed, before = rng.random(n) < 0.8, Nearest.usable
    Nearest.usable = usable
    try:
        close = Products(LightGCN(vectors, np.ones(n, np.float32)), vector)
        named = close.best(allowed, size)
    finally:
        Nearest.usable = before
    dense = close.dense(n)
    np.testing.assert_allclose(dense[named], dense[Scores(dense).best(allowed, size)], rtol=1e-5)
    np.testing.assert_allclose(of_each([close], named)[:, 0], dense[named], rtol=1e-4)

"""The three linear views of a history: by hand, against libraries, and the laws of scoring by history."""

from dataclasses import replace

import numpy as np
import pytest
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from training.blend import Blend, Parameters, fit, standardised

SMALL = Parameters(factors=4, vectors=3, iterations=4, threads=1)
LIKED = csr_matrix((np.random.default_rng(3).random((40, 25)) < 0.25).astype(np.float32))


@pytest.fixture(scope="module")
def model() -> Blend:
    return fit(LIKED, SMALL)


def test_neighbours_by_hand() -> None:
    """Users A {0, 1} and B {1, 2}: a history {0} meets A only, who weighs 2**-.5; item 0 weighs 1, item 1 2**-.5."""
    liked = csr_matrix(np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32))
    powers = replace(SMALL, factors=1, vectors=1, user_power=0.5, liked_power=1.0, asked_power=0.5)
    scores = fit(liked, powers).neighbours(csr_matrix(np.array([[1, 0, 0]], dtype=np.float32)))
    assert scores[0].tolist() == pytest.approx([2**-0.5, 2**-0.5 * 2**-0.5, 0.0])


def test_a_historys_factors_solve_its_least_squares(model: Blend) -> None:
    theirs = AlternatingLeastSquares(
        factors=4,
        regularization=SMALL.regularisation,
        alpha=SMALL.confidence,
        random_state=7,
        iterations=4,
        num_threads=1,
        use_cg=False,
    )
    theirs.fit(LIKED, show_progress=False)
    theirs.item_factors = model._items
    theirs._item_factors = model._items
    theirs._YtY = None
    users = theirs.recalculate_user(np.arange(5), LIKED[:5])
    assert model.factors(LIKED[:5]) == pytest.approx(users @ model._items.T, abs=2e-3)


def test_low_pass_keeps_a_history_that_its_vectors_span() -> None:
    """Two groups of users that like all of their own items: the two strongest vectors are the groups."""
    groups = np.zeros((6, 6), dtype=np.float32)
    groups[:3, :3] = groups[3:, 3:] = 1.0
    scores = fit(csr_matrix(groups), replace(SMALL, factors=1, vectors=2)).low_pass(csr_matrix(groups[:1]))
    assert scores[0].tolist() == pytest.approx([1, 1, 1, 0, 0, 0], abs=1e-5)


def test_the_order_of_the_users_and_of_the_items_leaves_no_trace_in_neighbours_and_low_pass(model: Blend) -> None:
    rng = np.random.default_rng(5)
    users, items = rng.permutation(40), rng.permutation(25)
    other = fit(LIKED[users][:, items], SMALL)
    for view in ("neighbours", "low_pass"):
        mine, theirs = getattr(model, view)(LIKED[:9]), getattr(other, view)(LIKED[:9][:, items])
        assert theirs == pytest.approx(mine[:, items], abs=1e-4)


def test_a_history_counts_at_once_and_an_empty_one_says_nothing(model: Blend) -> None:
    before, after = LIKED[:1].toarray(), LIKED[:1].toarray()
    after[0, np.flatnonzero(before[0] == 0)[0]] = 1.0
    assert not np.allclose(model.scores(csr_matrix(before)), model.scores(csr_matrix(after)))
    assert not model.scores(csr_matrix((1, 25), dtype=np.float32)).any()


def test_standardised_rows_have_mean_0_and_deviation_1_and_constant_ones_are_0() -> None:
    rows = standardised(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=np.float32))
    assert rows[0].mean() == pytest.approx(0)
    assert rows[0].std() == pytest.approx(1)
    assert rows[1].tolist() == [0, 0, 0]

"""Taste is the truncated SVD that it says it is, and finds what users share."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.taste import fit

GROUPS, OF_GROUP, USERS = 4, 30, 200
ITEMS = GROUPS * OF_GROUP


def planted(unliked: int = 0) -> csr_matrix:
    """Each user likes eight items of one group and one of any; the last `unliked` items nobody likes."""
    rng = np.random.default_rng(1)
    dense = np.zeros((USERS, ITEMS + unliked), np.float32)
    for user in range(USERS):
        dense[user, user % GROUPS * OF_GROUP + rng.choice(OF_GROUP, 8, replace=False)] = 1.0
        dense[user, rng.integers(ITEMS)] = 1.0
    return csr_matrix(dense)


def test_it_is_the_truncated_svd_of_what_was_liked_normalised_by_both_degrees() -> None:
    """Cosines are compared: vectors are what they are up to a rotation."""
    liked = planted().toarray().astype(float)
    normal = liked / np.sqrt(np.maximum(liked.sum(1, keepdims=True), 1)) / np.sqrt(np.maximum(liked.sum(0), 1))
    _, _, rows = np.linalg.svd(normal)
    want = rows[:GROUPS].T / np.linalg.norm(rows[:GROUPS].T, axis=1, keepdims=True)
    got = fit(planted(), GROUPS).items
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-3)


def test_items_that_the_same_users_like_lie_together() -> None:
    vectors = fit(planted(), GROUPS).items
    near = (vectors @ vectors.T).reshape(GROUPS, OF_GROUP, GROUPS, OF_GROUP).mean((1, 3))
    assert np.diag(near).min() > 0.8
    assert near[~np.eye(GROUPS, dtype=bool)].max() < 0.2


def test_what_nobody_liked_has_no_place() -> None:
    vectors = fit(planted(unliked=3)).items
    assert not vectors[ITEMS:].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[:ITEMS], axis=1), 1.0, rtol=1e-5)


def test_a_fit_can_be_repeated() -> None:
    np.testing.assert_array_equal(fit(planted()).items, fit(planted()).items)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (40, 2), (3, 40)])
def test_what_everybody_likes_lies_in_one_place(shape: tuple[int, int]) -> None:
    vectors = fit(csr_matrix(np.ones(shape, np.float32))).items
    assert vectors.shape == (shape[1], 1)
    np.testing.assert_allclose(vectors @ vectors.T, 1.0, rtol=1e-5)

"""The linear path beside DIN: what it finds, and how it is averaged in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.cascade import Features
from bentos.inputs import Floats, History
from bentos.stages.rank import rank
from training.networks import DinModule
from training.rankers import LINEAR, Listing, beside, fit_linear

M, F, DIM = 30, 5, 4
PLANTED = np.array([1.0, -0.7, 0.0, 0.4, 0.0], np.float32)
"""What liking hangs on; the last input is the same for all of a list."""


def listing(n: int) -> Listing:
    """One item is liked, drawn by the softmax of the planted weights."""
    rng = np.random.default_rng(n)
    inputs = rng.normal(size=(M, F)).astype(np.float32)
    inputs[:, -1] = rng.normal()
    logits = inputs @ PLANTED
    chance = np.exp(logits - logits.max()).astype(np.float64)
    labels = np.zeros(M, np.float32)
    labels[rng.choice(M, p=chance / chance.sum())] = 1
    f = Features(
        np.arange(M),
        [()] * M,
        inputs,
        rng.normal(size=(M, DIM)).astype(np.float32),
        np.zeros((0, DIM), np.float32),
        np.zeros(0, np.float32),
        History(np.zeros(0, np.int64), np.zeros(0, np.float32)),
    )
    return Listing(
        f, labels, np.zeros(M, np.float32), f"u{n % 50}", np.zeros(M, bool), np.zeros(M), np.zeros(M, np.float32)
    )


def test_the_linear_path_finds_what_is_planted_from_a_few_of_the_negatives() -> None:
    lists = [listing(n) for n in range(2_000)]
    mean, scale = np.full(F, 0.5, np.float32), np.full(F, 2.0, np.float32)
    found = fit_linear(lists, mean, scale, size=12) / scale
    np.testing.assert_allclose(found, PLANTED, atol=0.1)
    assert abs(found[-1]) < 1e-3, "what is the same for all of a list says nothing of its order"


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 32), weights=st.lists(st.floats(-3, 3, width=32), min_size=F, max_size=F))
def test_both_logits_are_averaged_and_conversion_stays(seed: int, weights: list[float]) -> None:
    din, f, linear = DinModule(F, DIM).din(), listing(seed).features, np.array(weights, np.float32)
    before, after = (rank(d, f.inputs, f.vectors, f.history, f.ages_s) for d in (din, beside(din, linear)))
    scaled: Floats = (f.inputs - din.weights["mean"]) / din.weights["scale"]
    average = (1 - LINEAR) * before.logits + LINEAR * (scaled @ linear)
    np.testing.assert_allclose(after.logits, average, atol=1e-4)
    np.testing.assert_array_equal(after.conversion, before.conversion)

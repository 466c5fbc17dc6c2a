"""What a list's sample holds; the linear path beside DIN: what it finds, and how it is averaged in."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.cascade import Features
from bentos.inputs import Floats, History
from bentos.stages.rank import rank
from training.networks import DinModule
from training.rankers import LINEAR, PASSED, Listing, beside, fit_linear

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
    none = np.zeros(M, np.float32)
    return Listing(f, labels, none, f"u{n % 50}", np.zeros(M, bool), np.zeros(M, bool), np.zeros(M), none)


BOTH = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=M)
"""Of each candidate: whether it is liked, and whether it was passed over."""


def marked(some: list[tuple[bool, bool]]) -> Listing:
    liked, passed = np.zeros(M, np.float32), np.zeros(M, bool)
    liked[: len(some)], passed[: len(some)] = zip(*some, strict=True)
    return replace(listing(0), labels=liked, passed=passed)


@given(BOTH, st.integers(0, 1 << 32), st.integers(0, 2 * M))
def test_a_sample_is_what_was_liked_and_a_share_of_impressions(
    some: list[tuple[bool, bool]], seed: int, others: int
) -> None:
    x = marked(some)
    liked = int(x.labels.sum())
    picks = x.sample(liked + others, np.random.default_rng(seed))
    assert len(set(picks.tolist())) == len(picks) == min(liked + others, M)
    np.testing.assert_array_equal(picks[:liked], np.flatnonzero(x.labels > 0))
    negatives = picks[liked:]
    assert not x.labels[negatives].any(), "nothing liked is a negative, shown or not"
    least = min(int(PASSED * len(negatives)), int((x.passed & (x.labels <= 0)).sum()))
    assert x.passed[negatives[:least]].all(), "impressions come first, up to their share"


@given(BOTH, st.integers(0, 1 << 32), st.integers(M // 2, 2 * M))
def test_without_impressions_all_negatives_are_drawn_evenly(
    some: list[tuple[bool, bool]], seed: int, size: int
) -> None:
    x = marked([(liked and n < 9, False) for n, (liked, _) in enumerate(some)])
    positive, negative = np.flatnonzero(x.labels > 0), np.flatnonzero(x.labels <= 0)
    rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(2):
        drawn = rng.choice(negative, min(len(negative), size - len(positive)), replace=False)
        np.testing.assert_array_equal(x.sample(size, same), np.concatenate([positive, drawn]))


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

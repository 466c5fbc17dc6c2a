"""The second head: it learns what turns a like into a conversion, leaves the order alone, and the house may use it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.cascade import Ask, Features
from bentos.inputs import History
from bentos.stages.rank import PLAIN, Ranked
from bentos.stages.rerank import Keep, towards_conversion
from bentos.stages.rules import Rules
from tests.bentos.small import cascade, item_matrix, liking
from training.conversion import WEIGHTS, auc, measures, prices, said
from training.rankers import Fitted, Listing, fit_din

M, DIM = 20, 4


def listing(n: int) -> Listing:
    """Liked are the two that have the most of the first input; they convert if they have enough of the second."""
    rng = np.random.default_rng(n)
    inputs = rng.normal(size=(M, 3)).astype(np.float32)
    best = inputs[:, 0] >= np.sort(inputs[:, 0])[-2]
    f = Features(
        np.arange(M),
        [()] * M,
        inputs,
        np.zeros((M, DIM), np.float32),
        np.zeros((0, DIM), np.float32),
        np.zeros(0, np.float32),
        History(np.zeros(0, np.int64), np.zeros(0, np.float32)),
    )
    liked, converts = best.astype(np.float32), (best & (inputs[:, 1] > 0)).astype(np.float32)
    return Listing(
        f, liked, converts, f"u{n % 50}", np.zeros(M, bool), np.zeros(M, bool), np.zeros(M), np.zeros(M, np.float32)
    )


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    din = fit_din([listing(n) for n in range(1_500)], epochs=4, learning_rate=5e-3)
    return Fitted(din, Keep(), PLAIN, {})


def test_both_heads_learn_what_is_planted(fitted: Fitted) -> None:
    held = [listing(n) for n in range(2_000, 2_300)]
    ranked = said(fitted, held)
    found = measures(held, ranked)
    assert found["conversion AUC"] > 0.95
    assert found["conversion ECE"] < 0.15
    assert found["converted"] == pytest.approx(np.mean([x.converted.sum() / 2 for x in held]))
    assert prices(fitted, held, ranked)[0].ndcg > 0.95


def test_hoping_brings_what_converts_to_the_top_and_costs_likes(fitted: Fitted) -> None:
    held = [listing(n) for n in range(2_000, 2_300)]
    found = prices(fitted, held, said(fitted, held))
    assert [price.weight for price in found] == list(WEIGHTS)
    assert found[0].change == found[0].gain == (0, 0, 0)
    assert found[-1].gain.low > 0
    assert found[-1].change.high < 0, "what is liked and does not convert falls"


def test_nothing_that_converts_is_no_table_and_no_error(fitted: Fitted) -> None:
    held = [listing(n) for n in range(2_000, 2_050)]
    for x in held:
        x.converted[:] = 0
    assert prices(fitted, held, said(fitted, held)) == []
    assert measures(held, said(fitted, held))["conversion AUC"] == 0.5


@given(
    scores=st.lists(st.integers(-50, 50), min_size=2, max_size=20, unique=True),
    odds=st.lists(st.integers(-5, 5), min_size=20, max_size=20),
    weight=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_the_order_is_that_of_the_product_of_both_chances(scores: list[int], odds: list[int], weight: float) -> None:
    logits, conversion = np.array(scores, np.float32) / 10, np.array(odds[: len(scores)], np.float32)
    said = Ranked(logits, conversion, np.zeros((len(logits), 1), np.float32))
    product = np.exp(logits.astype(float)) * (1 / (1 + np.exp(-conversion.astype(float)))) ** weight
    np.testing.assert_allclose(towards_conversion(logits, said, weight), np.log(product), atol=1e-4)
    other = towards_conversion(logits * 7 + 3, said, weight)  # another scale, the same order
    np.testing.assert_allclose((other - 3) / 7, np.log(product), atol=1e-4)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    good, bad = [s for s, y in rows if y], [s for s, y in rows if not y]
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    scores, labels = np.array([s for s, _ in rows], np.float32), np.array([y for _, y in rows], np.float32)
    assert auc(scores, labels) == pytest.approx(np.mean(pairs) if pairs else 0.5)


def test_the_rule_moves_answers_and_none_does_not() -> None:
    made, matrix, user = cascade(), item_matrix(), liking("i3", "i20")
    plain = made.recommend(Ask("u", user, matrix, 20)).picks
    same = made.recommend(Ask("u", user, matrix, 20, rules=Rules(mark="some"))).picks
    moved = made.recommend(Ask("u", user, matrix, 20, rules=Rules(conversion_weight=4.0))).picks
    assert [p.item_id for p in plain] == [p.item_id for p in same] != [p.item_id for p in moved]
    assert {p.conversion for p in plain} == {p.conversion for p in moved}
    assert all(p.conversion is not None and 0 < p.conversion < 1 for p in plain)

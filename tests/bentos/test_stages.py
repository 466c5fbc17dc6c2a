"""The stages one by one, against plain formulas."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from bentos.inputs import ITEM_COLUMNS, RANKED_COLUMNS, Floats, History, ItemMatrix, ItemTable, item_inputs
from bentos.stages.rank import FAR, gap_bucket, rank
from bentos.stages.recall import SOURCES, ItemToItem, LightGCN, Scores, candidates, is_new, newness
from bentos.stages.rerank import Keep, diversify
from feature_repo.features import item as item_profile
from streams.aggregates import HOUR, TILE
from streams.catalogue import Item
from tests.bentos.small import ITEMS, NOW, cascade, event, item_matrix, liking
from training.networks import DinModule, RankNetModule


def test_the_factorised_attention_is_the_plain_one() -> None:
    torch.manual_seed(0)
    din, rng = DinModule(inputs=4, dim=6).din(), np.random.default_rng(0)
    history, gaps, candidate = rng.normal(size=(5, 6)), rng.integers(0, 8, 5), rng.normal(size=(7, 6))
    h, c, logits = din.attention(history.astype(np.float32), gaps, candidate.astype(np.float32))
    w = din.weights
    for m in range(7):
        for t in range(5):
            first = w["of_history.weight"] @ h[t] + w["of_candidate.weight"] @ c[m] + w["of_candidate.bias"]
            first += w["of_both.weight"] @ (h[t] * c[m])
            plain = w["attend.weight"][0] @ np.maximum(first, 0) + w["attend.bias"][0]
            assert logits[m, t] == pytest.approx(plain, abs=1e-5)


@given(seed=st.integers(0, 1 << 32), m=st.integers(1, 9), t=st.integers(0, 6))
def test_what_is_served_is_what_was_trained(seed: int, m: int, t: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    module, top = DinModule(inputs=4, dim=6).eval(), RankNetModule(inputs=5).eval()
    module.mean.normal_(), module.scale.uniform_(0.5, 2), module.linear.normal_()

    def drawn(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(np.float32)

    rows, vectors, history, ages_s = 5 * drawn(m, 4), drawn(m, 6), drawn(t, 6), 10 ** np.abs(drawn(t) * 3)
    padded, mask = np.zeros((max(t, 1), 6), np.float32), np.zeros(max(t, 1), bool)
    padded[:t], mask[:t] = history, True
    gaps = np.zeros(max(t, 1), np.int64)
    gaps[:t] = gap_bucket(ages_s)
    given = (torch.from_numpy(x)[None] for x in (rows, padded, gaps, mask, vectors))
    with torch.inference_mode():
        scores, weights = module(*given)
        order = top(torch.from_numpy(others := drawn(m, 5)))
    said = rank(module.din(), rows, vectors, history, ages_s)
    np.testing.assert_allclose(np.stack([said.logits, said.conversion], 1), scores[0], atol=1e-5)
    np.testing.assert_allclose(said.attention, weights[0], atol=1e-6)
    np.testing.assert_allclose(top.ranknet().scores(others), order, atol=1e-5)


def test_an_input_that_is_farther_than_any_seen_counts_no_more_than_a_far_one() -> None:
    torch.manual_seed(0)
    module = DinModule(inputs=4, dim=6)
    module.linear.normal_()
    none = np.zeros((0, 6), np.float32), np.zeros(0, np.float32)
    vectors = np.ones((1, 6), np.float32)
    far, farther = (rank(module.din(), np.full((1, 4), x, np.float32), vectors, *none) for x in (FAR, 1e9))
    np.testing.assert_array_equal(far.logits, farther.logits)


def test_attention_sums_to_one_and_to_nothing_without_a_history() -> None:
    torch.manual_seed(0)
    din = DinModule(inputs=4, dim=6).din()
    rows, vectors = np.ones((3, 4), np.float32), np.ones((3, 6), np.float32)
    weights = rank(din, rows, vectors, np.ones((5, 6), np.float32), np.ones(5, np.float32)).attention
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    scores, _, none = rank(din, rows, vectors, np.zeros((0, 6), np.float32), np.zeros(0, np.float32))
    assert none.sum() == 0
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(("age_s", "bucket"), [(0, 0), (59, 0), (60, 1), (239, 1), (240, 2), (1e9, 7)])
def test_gaps_grow_by_factors_of_four(age_s: float, bucket: int) -> None:
    assert gap_bucket(np.array([age_s], np.float32)).item() == bucket


def test_fold_in_is_the_normalised_sum_of_what_was_liked() -> None:
    items = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    graph = LightGCN(items, np.array([4.0, 1.0, 1.0], np.float32))
    vector = graph.user(np.array([0, 1]), np.ones(2, np.float32))
    np.testing.assert_allclose(vector, np.array([0.5, 1.0]) / np.sqrt(2), rtol=1e-6)


def test_one_new_event_changes_the_order_of_recall() -> None:
    recall, matrix = cascade().recall, item_matrix()
    before, after = liking("i3"), liking("i3", "i20")
    for j, name in enumerate(SOURCES[:4]):
        scores = [recall.scores(v, matrix, History.of(v, matrix))[j].dense(len(matrix)) for v in (before, after)]
        assert (np.argsort(-scores[0]) != np.argsort(-scores[1])).any(), name


def by_source(**given: list[float]) -> list[Scores]:
    """What each source says of all items; nothing where it is not given."""
    size = len(next(iter(given.values())))
    return [Scores(np.array(given.get(name, [0.0] * size), np.float32)) for name in SOURCES]


def test_candidates_name_every_source_that_found_them() -> None:
    scores = by_source(item_to_item=[6, 5, 4, 3, 2, 1], lightgcn=[1, 0, 0, 0, 0, 0])
    rows, sources = candidates(scores, np.array([True, False, True, True, True, True]), 4)
    assert rows.tolist() == [0, 2, 3, 4]
    assert set(sources[0]) == {SOURCES[0], SOURCES[3]}


def test_equal_scores_are_recalled_in_the_order_of_the_matrix() -> None:
    rows, _ = candidates(by_source(trending=[1.0] * 9), np.ones(9, bool), 5)
    assert rows.tolist() == [0, 1, 2, 3, 4]


@given(
    values=st.lists(st.integers(-2, 4), min_size=1, max_size=30),
    allowed=st.lists(st.booleans(), min_size=30, max_size=30),
    size=st.integers(1, 12),
)
def test_the_best_of_a_source_are_the_same_however_its_scores_are_kept(
    values: list[int], allowed: list[bool], size: int
) -> None:
    dense, may = np.array(values, np.float32), np.array(allowed[: len(values)])
    want = [row for row in sorted(range(len(values)), key=lambda row: -values[row]) if values[row] > 0 and may[row]]
    known = np.flatnonzero(dense)
    order = np.argsort(-dense, kind="stable")
    for scores in (Scores(dense), Scores(dense[known], known), Scores(dense, order=order[dense[order] > 0])):
        assert scores.best(may, size).tolist() == want[:size]
        assert scores.dense(len(values)).tolist() == dense.tolist()
        assert scores.of(np.array([len(values) - 1, 0])).tolist() == [dense[-1], dense[0]]


@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 3))
def test_the_best_of_many_are_the_best(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    values, may = rng.integers(-5, 60, 2_000).astype(np.float32), rng.random(2_000) < 0.5
    want = [row for row in np.argsort(-values, kind="stable").tolist() if values[row] > 0 and may[row]]
    assert Scores(values).best(may, size).tolist() == want[:size]


@given(seed=st.integers(0, 1 << 32), n=st.integers(1, 50), width=st.integers(0, 12))
def test_new_items_fit_by_their_categories(seed: int, n: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    values, names = rng.integers(0, 3, (n, len(ITEM_COLUMNS))).astype(float), tuple(f"c{j}" for j in range(width))
    values[:, ITEM_COLUMNS.index("age_s")] = 1e6
    hot = (rng.random((n, width)) < 0.3).astype(np.float32)
    ids = tuple(f"i{row}" for row in range(n))
    items = ItemMatrix(NOW, ids, {i: row for row, i in enumerate(ids)}, values, names, hot, [None] * n)
    interest = rng.random(width).astype(np.float32)
    plain = (hot @ interest + 0.1) / (1 + items.column("impressions_7d") / 50)
    np.testing.assert_allclose(newness(items, interest).dense(n), np.where(is_new(items), plain, 0), rtol=1e-5)
    assert [items.categories_of(row) for row in range(n)] == [
        tuple(name for name, has in zip(names, row, strict=True) if has) for row in hot
    ]


@given(seed=st.integers(0, 1 << 32), liked=st.integers(0, 9), size=st.integers(1, 20))
def test_following_links_sums_to_the_bits_of_the_matrix_product(seed: int, liked: int, size: int) -> None:
    rng, n = np.random.default_rng(seed), 12
    dense = rng.normal(size=(n, n)).astype(np.float32) * (rng.random((n, n)) < 0.4)
    links = ItemToItem(csr_matrix(dense))
    places = np.where(rng.random(n) < 0.7, rng.permutation(max(n, size))[:n], -1)
    places[places >= size] = -1
    rows = rng.permutation(n)[:liked]
    weights = rng.normal(size=(3, liked)).astype(np.float32)
    found, sums = links.among(places, size, rows, weights)
    assert (np.diff(found) > 0).all()
    want = np.zeros((3, size), np.float32)
    want[:, places[places >= 0]] = links.scores(rows, weights)[:, places >= 0]
    got = np.zeros((3, size), np.float32)
    got[:, found] = sums
    assert got.tobytes() == want.tobytes()


def test_marginal_relevance_by_hand() -> None:
    scores = np.array([3.0, 2.9, 2.0], np.float32)
    same = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert diversify(scores, same, 3, 0.0).tolist() == [0, 1, 2]
    # the second is like the first, so it costs its strength (in spreads of the scores), and the third goes before it
    assert diversify(scores, same, 3, 5.0).tolist() == [0, 2, 1]


def test_item_values_at_a_tile_are_those_of_the_profile() -> None:
    """The table recomputes only what changed, and ages the rest; that must not be seen."""
    rng = np.random.default_rng(5)
    states = {f"i{n}": item_profile.new() for n in range(6)}
    table = ItemTable()
    for name in states:
        table.describe(Item(name, "", ("drama",)))
    for step in range(400):
        tile = NOW // TILE * TILE + step * 7 * TILE
        for name in rng.choice(list(states), rng.integers(0, 3), replace=False):
            kind = str(rng.choice(["view", "click", "impression", "rate"]))
            at = tile - int(rng.integers(1, HOUR))
            item_profile.update(states[name], event(step, f"u{rng.integers(9)}", name, kind, at, 4.0))
            table.put(name, item_profile.encode(states[name]))
        if step % 5 == 0:
            matrix = table.at(tile)
            for name, state in states.items():
                known = item_profile.values_at_tile(item_profile.encode(state), tile)
                assert matrix.values_of(matrix.index[name]) == known, (step, name)


def test_matrices_of_one_list_of_items_share_what_is_derived() -> None:
    table = ItemTable()
    table.describe(Item("i1", "", ("drama",)))
    first, second = table.at(TILE), table.at(2 * TILE)
    owner, made = Keep(), []
    for matrix in (first, second):
        matrix.derive(owner, lambda: made.append(1))
    assert len(made) == 1
    table.describe(Item("i2", "", ("war",)))
    table.at(3 * TILE).derive(owner, lambda: made.append(1))
    assert len(made) == 2


def test_what_ranking_is_told_of_items_is_made_in_little_more_memory_than_it_takes() -> None:
    """Each tile makes it anew: what it takes beside itself for a moment is what a serving process grows by."""
    values = np.random.default_rng(3).normal(scale=100, size=(20_000, len(ITEM_COLUMNS)))
    items = replace(item_matrix(), values=values, ids=tuple(map(str, range(len(values)))))
    tracemalloc.start()
    made = item_inputs(items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plain = np.log1p(np.maximum(values[:, [ITEM_COLUMNS.index(name) for name in RANKED_COLUMNS]], 0))
    np.testing.assert_array_equal(made, plain.astype(np.float32))
    assert peak < 1.5 * made.nbytes


def test_the_size_of_the_small_world() -> None:
    assert len(item_matrix()) == ITEMS

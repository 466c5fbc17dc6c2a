"""Every model of what goes with what, on data with a known answer, through the same checks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from bentos.inputs import Floats, ItemTable
from feature_repo.features import user as user_profile
from streams.catalogue import Item
from streams.events import Event
from training import item_to_item, lightgcn
from training.baselines import baselines
from training.datasets import Question

GROUPS, OF_GROUP, USERS, EACH = 3, 40, 240, 10
"""More items than any model has factors: one with as many could learn each item by itself."""
ITEMS = GROUPS * OF_GROUP


def planted() -> csr_matrix:
    """Each user likes ten items of one of three groups."""
    rng = np.random.default_rng(1)
    dense = np.zeros((USERS, ITEMS), np.float32)
    for user in range(USERS):
        dense[user, user % GROUPS * OF_GROUP + rng.choice(OF_GROUP, EACH, replace=False)] = 1.0
    return csr_matrix(dense)


LIKED = planted()
Scores = Callable[[np.ndarray], Floats]


def of_baseline(name: str) -> Scores:
    scorer, size_mb = baselines(LIKED)[name]()
    assert 0 < size_mb < 1

    def score(rows: np.ndarray) -> Floats:
        table, state = ItemTable(), user_profile.new()
        for n in range(ITEMS):
            table.describe(Item(f"i{n}", ""))
        for at, row in enumerate(rows):
            user_profile.update(state, Event(f"e{at}", "u", f"i{row}", "click", at + 1, at + 1))
        return scorer(Question("u", 1_000, user_profile.values(state, 1_000), table.at(0), frozenset(), ()))

    return score


def of_links(links: csr_matrix) -> Scores:
    from bentos.stages.recall import ItemToItem

    return lambda rows: ItemToItem(links).scores(rows, np.ones((1, len(rows)), np.float32))[0]


def of_graph() -> Scores:
    graph = lightgcn.fit(LIKED, lightgcn.Parameters(dim=16, epochs=40, batch=256, negatives=64))
    return lambda rows: graph.scores(rows, np.ones(len(rows), np.float32))


MODELS: dict[str, Callable[[], Scores]] = {
    "item CF": lambda: of_baseline("item CF"),
    "ALS": lambda: of_baseline("ALS"),
    "EASE": lambda: of_baseline("EASE"),
    "blend": lambda: of_baseline("blend"),
    "closed form": lambda: of_links(item_to_item.ease(LIKED, 10.0)),
    "cosine": lambda: of_links(item_to_item.cosine(LIKED, 8)),
    "LightGCN": of_graph,
}


@pytest.fixture(scope="module", params=MODELS)
def scores(request: pytest.FixtureRequest) -> Scores:
    return MODELS[request.param]()


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_goes_with_it_comes_first(scores: Scores, group: int) -> None:
    mine = np.array([group * OF_GROUP, group * OF_GROUP + 1])
    given = scores(mine).astype(float)
    given[mine] = -np.inf
    best = np.argsort(-given)[:10]
    assert set(best // OF_GROUP) == {group}


def test_another_event_moves_the_answer(scores: Scores) -> None:
    """Fold-in: a model that was not trained again answers to the newest event."""
    before, after = scores(np.array([0])), scores(np.array([0, OF_GROUP, OF_GROUP + 1]))
    other = slice(OF_GROUP + 2, 2 * OF_GROUP)

    def lead(given: Floats) -> float:
        """How far the second group lies before the third, in spreads of the scores of what the user has not."""
        spread = np.delete(given, [0, OF_GROUP, OF_GROUP + 1]).std()
        return float((given[other].mean() - given[2 * OF_GROUP :].mean()) / spread)

    assert lead(after) > lead(before) + 0.1


def test_no_history_gives_no_opinion(scores: Scores) -> None:
    given = scores(np.array([], dtype=np.int64))
    assert given.shape == (ITEMS,)
    assert not given.any()


@pytest.mark.parametrize("fit", [lambda: of_graph()(np.array([0])), lambda: of_baseline("ALS")(np.array([0]))])
def test_a_seeded_fit_can_be_repeated(fit: Callable[[], Floats]) -> None:
    np.testing.assert_array_equal(fit(), fit())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use here")
def test_the_gpu_learns_what_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    there = of_graph()(np.array([0]))
    monkeypatch.setattr(lightgcn, "device", lambda: torch.device("cpu"))
    here = of_graph()(np.array([0]))
    assert np.corrcoef(there, here)[0, 1] > 0.99


def test_cosine_by_hand() -> None:
    liked = csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32))
    near = item_to_item.cosine(liked, 5).toarray()
    assert near[0, 1] == pytest.approx(2 / np.sqrt(3 * 2))
    assert near[0, 2] == pytest.approx(1 / np.sqrt(3 * 1))
    assert near[0, 0] == 0
    assert item_to_item.cosine(liked, 1)[0].nnz == 1


def test_ease_solves_its_problem() -> None:
    """Its weights are the minimum of |X - XB|^2 + lambda |B|^2 with a zero diagonal: no small change is better."""
    x, penalty = LIKED.toarray().astype(float), 10.0
    weights = item_to_item.ease(LIKED, penalty).toarray().astype(float)

    def cost(b: np.ndarray) -> float:
        return float(((x - x @ b) ** 2).sum() + penalty * (b**2).sum())

    rng = np.random.default_rng(0)
    assert np.diag(weights).tolist() == [0.0] * ITEMS
    for _ in range(20):
        step = rng.normal(size=weights.shape) * 1e-3
        np.fill_diagonal(step, 0.0)
        assert cost(weights + step) > cost(weights)


def test_the_powers_weigh_users_and_both_items_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    liked = csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32))
    powers = item_to_item.Powers(user=1.0, liked=2.0, asked=0.5)
    monkeypatch.setattr(item_to_item, "BLOCK", 2)
    near = item_to_item.neighbours(liked, 5, powers).toarray()
    assert near[0, 1] == pytest.approx(3**-2 * (1 / 2 + 1 / 3) * 2**-0.5)
    assert near[2, 0] == pytest.approx(1 * (1 / 3) * 3**-0.5)
    assert near.diagonal().tolist() == [0, 0, 0]


def test_a_large_catalogue_gets_weighed_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_to_item, "CLOSED_FORM_ITEMS", ITEMS - 1)
    links = item_to_item.fit(LIKED).weights
    assert (links != item_to_item.neighbours(LIKED, item_to_item.LINKS, item_to_item.LARGE)).nnz == 0

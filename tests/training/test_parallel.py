"""Two processes of a Ray cluster learn what one learns, step for step."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bentos.cascade import Features
from bentos.inputs import Floats, History
from bentos.stages.rank import Din, rank
from bentos.stages.recall import LightGCN
from tests.training.test_models import LIKED
from training import lightgcn
from training.parallel import ALONE, Crew, NoCluster, add_up, part
from training.rankers import Listing, fit_din

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
GRAPH = lightgcn.Parameters(dim=8, epochs=3, batch=255, negatives=32)
"""The last batch of an epoch has 105 of the 2,400 pairs: an odd number for two."""


def listings(count: int) -> list[Listing]:
    rng = np.random.default_rng(3)

    def drawn(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(np.float32)

    made = []
    for n in range(count):
        history = History(np.arange(n % 4), np.full(n % 4, 60.0, np.float32))
        rows = np.arange(20)
        f = Features(rows, [("new",)] * 20, drawn(20, 5), drawn(20, 8), drawn(n % 4, 8), history.ages_s, history)
        made.append(
            Listing(
                f,
                (rows == n % 20).astype(np.float32),
                (rows == n % 40).astype(np.float32),
                "u",
                rows < 0,
                rows < 0,
                drawn(20).astype(float),
                drawn(20),
            )
        )
    return made


def both() -> tuple[LightGCN, Din]:
    """129 lists in batches of 64: in the last one is one list, so a part of two is empty."""
    return lightgcn.fit(LIKED, GRAPH), fit_din(listings(129), epochs=2, learning_rate=1e-3)


def order(din: Din, listing: Listing) -> Floats:
    """The logits, less their mean: the last bias has no gradient but rounding, and changes no order."""
    f = listing.features
    logits = rank(din, f.inputs, f.vectors, f.history, f.ages_s).logits
    centred: Floats = logits - logits.mean()
    return centred


def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    (one, alone), (two, shared) = ALONE.fit(both), Crew(2, tmp_path).fit(both)
    np.testing.assert_allclose(two.items, one.items, atol=1e-3)
    assert np.abs(one.items - lightgcn.fit(LIKED, lightgcn.Parameters(dim=8, epochs=0)).items).max() > 0.1
    for listing in listings(9):
        np.testing.assert_allclose(order(shared, listing), order(alone, listing), atol=1e-3)


def wrong(what: str) -> None:
    raise ValueError(what)


def test_a_loop_that_fails_there_says_why_here(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match=r"training on 2 workers failed: [\s\S]*no such data"):
        Crew(2, tmp_path).fit(partial(wrong, "no such data"))


def test_alone_everything_is_ours() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    (2 * weight).sum().backward()
    add_up([weight])
    assert weight.grad is not None
    assert (part([1, 2, 3]), weight.grad.tolist()) == ([1, 2, 3], [2.0, 2.0])

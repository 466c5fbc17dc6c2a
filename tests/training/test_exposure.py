"""What the table of dials says, against lists whose answers are known."""

import numpy as np
import pytest
import torch

from bentos.cascade import Features
from bentos.inputs import History
from bentos.stages.rank import PLAIN
from bentos.stages.rerank import Keep
from training.exposure import DIALS, dials
from training.networks import DinModule
from training.rankers import Fitted, Listing, ndcg, with_din

M, INPUTS, DIM, ITEMS = 40, 3, 4, 100


def fitted() -> Fitted:
    """Ranking that learned nothing."""
    torch.manual_seed(1)
    return Fitted(DinModule(INPUTS, DIM).din(), Keep(), PLAIN, {})


def listing(n: int, of_tail: float, liked: int | None) -> Listing:
    """A list of 40 candidates, of which a part is the tail's; `liked` counts from the best, None for none."""
    rng = np.random.default_rng(n)
    rows = rng.choice(ITEMS, M, replace=False).astype(np.int64)
    history = np.zeros((0, DIM), np.float32)
    f = Features(
        rows,
        [()] * M,
        rng.normal(size=(M, INPUTS)).astype(np.float32),
        rng.normal(size=(M, DIM)).astype(np.float32),
        history,
        np.zeros(0, np.float32),
        History(np.zeros(0, np.int64), np.zeros(0, np.float32)),
    )
    none, nothing = np.zeros(M, np.float32), np.zeros(M, bool)
    plain = Listing(
        f, none.copy(), none, f"u{n % 7}", nothing, rng.random(M) < of_tail, rng.random(M), rng.random(M, np.float32)
    )
    if liked is not None:
        plain.labels[np.argsort(-scores(plain), kind="stable")[liked]] = 1.0
    return plain


def scores(x: Listing) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return with_din(fitted().din, x, np.arange(M))[:, -1]


def test_a_dial_of_0_is_what_the_models_say() -> None:
    held = [listing(n, 0.5, n % 12 if n % 5 else None) for n in range(60)]
    plain = dials(fitted(), held, ITEMS)[0]
    assert plain.ndcg == pytest.approx(np.mean([ndcg(x.labels, scores(x)) for x in held]))
    assert plain.change == (0.0, 0.0, 0.0)
    assert (plain.rule, plain.short) == ("", 0.0)
    shown = {int(row) for x in held for row in x.features.rows[np.argsort(-scores(x), kind="stable")[:20]]}
    assert plain.coverage == len(shown) / ITEMS


def test_the_tail_gets_its_share_and_what_the_head_loses_is_counted() -> None:
    held = [listing(n, 0.5, 0) for n in range(60)]
    for x in held:
        best = np.argsort(-scores(x), kind="stable")
        x.tail[best[:20]], x.tail[best[20:]] = False, True  # the head is better, and what is liked is its best
    given = dials(fitted(), held, ITEMS)
    assert [dial.rule for dial in given] == list(DIALS)
    found = given[:5]
    assert (found[0].tail, found[0].ndcg) == (0.0, pytest.approx(1.0))
    for dial in found[1:]:
        least = DIALS[dial.rule].least_tail_exposure
        assert least <= dial.tail < least + 0.15
        assert dial.short == 0
    assert found[1].change.mean == 0, "the first place stays the best one's where little is promised"
    assert found[-1].change.mean == pytest.approx(1 / np.log2(3) - 1), "half of it needs the first place"
    assert found[-1].ndcg == pytest.approx(1 / np.log2(3))


def test_answers_that_lack_a_tail_are_counted() -> None:
    held = [listing(n, 0.0 if n % 4 == 0 else 1.0, 1) for n in range(40)]
    assert [dial.short for dial in dials(fitted(), held, ITEMS)] == [0, *[pytest.approx(0.25)] * 4, *[0] * 6]


@pytest.mark.parametrize(("what", "of"), [("novelty", "novelty"), ("freshness", "fresh")])
def test_the_further_a_dial_is_turned_the_more_there_is_of_it_and_the_less_of_what_is_liked(what: str, of: str) -> None:
    held = [listing(n, 0.5, 0) for n in range(60)]
    plain, *turned = [d for d in dials(fitted(), held, ITEMS) if not d.rule or d.rule.startswith(what)]
    there, liked = ([getattr(d, name) for d in (plain, *turned)] for name in (of, "ndcg"))
    assert len(turned) == 3
    assert there == sorted(there)
    assert there[-1] > there[0] + 0.05
    assert liked == sorted(liked, reverse=True)
    assert liked[-1] < liked[0] == pytest.approx(1.0)

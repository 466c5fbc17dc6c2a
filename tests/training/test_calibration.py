"""Probabilities that can be believed, and the measure that says how far."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bentos import bundle
from bentos.cascade import Ask
from bentos.stages.rank import PLAIN, Calibration, log_shares, probabilities
from tests.bentos.small import cascade, item_matrix, liking
from training import calibration

TRUE = Calibration(0.7, -0.4)
LISTS, SIZE = 6_000, 30


def lists(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lists whose items are liked with the probabilities of `TRUE`."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(LISTS):
        logits = rng.normal(scale=2.0, size=SIZE).astype(np.float32) + np.float32(rng.normal(scale=5.0))
        made.append((logits, (rng.random(SIZE) < probabilities(logits, TRUE)).astype(np.float32)))
    return made


def test_shares_of_a_list_sum_to_one_however_its_logits_are_shifted() -> None:
    logits = np.array([1.0, 2.0, 500.0], np.float32)
    np.testing.assert_allclose(np.exp(log_shares(logits)).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(log_shares(logits), log_shares(logits - 300), atol=1e-4)


def test_no_logit_is_too_far_away() -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        likely = probabilities(np.array([0.0, 900.0, -900.0], np.float32), Calibration(3.0, -40.0))
    assert np.isfinite(likely).all()


def test_the_fit_finds_the_probabilities_that_made_the_labels_and_they_can_be_believed() -> None:
    found = calibration.fit(lists(1))
    assert found.slope == pytest.approx(TRUE.slope, abs=0.05)
    assert found.offset == pytest.approx(TRUE.offset, abs=0.15)
    fresh = lists(2)
    came = np.concatenate([labels for _, labels in fresh]).astype(np.float64)

    def error(by: Calibration) -> float:
        said = np.concatenate([probabilities(logits, by) for logits, _ in fresh]).astype(np.float64)
        return calibration.ece(said, came)

    assert error(found) < 0.003 < error(PLAIN)


def test_the_error_by_hand() -> None:
    said = np.repeat(np.linspace(0.1, 0.9, calibration.BINS), 10)
    came = np.zeros(len(said))
    assert calibration.ece(said, came) == pytest.approx(0.5)
    assert calibration.ece(came, came) == 0.0


def test_what_was_promised_of_the_first_is_compared_with_what_came() -> None:
    heard = calibration.Reliability(2)
    heard.add(np.array([0.5, 0.3, 0.1], np.float32), np.array([1.0, 0.0, 0.0], np.float32))
    heard.add(np.array([0.4, 0.2, 0.1], np.float32), np.array([0.0, 0.0, 1.0], np.float32))
    measured = heard.measures()
    assert measured["promised of the first 2"] == pytest.approx(0.35)
    assert measured["came of the first 2"] == 0.25


def test_a_bundle_keeps_its_calibration_and_answers_with_probabilities(tmp_path: Path) -> None:
    made = dataclasses.replace(cascade(), calibration=TRUE)
    bundle.save(tmp_path / "made", made, b"key")
    loaded = bundle.load(tmp_path / "made", b"key", "1").cascade
    assert loaded.calibration == TRUE
    ask = Ask("ada", liking("i3"), item_matrix(), 10)
    picks = loaded.recommend(ask).picks
    assert all(pick.probability is not None and 0 < pick.probability < 1 for pick in picks)
    late = iter([True])
    assert {pick.probability for pick in loaded.recommend(ask, lambda: next(late)).picks} == {None}

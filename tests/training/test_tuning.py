"""What tuning looks at, how it scores, and the file that it leaves."""

from pathlib import Path

import numpy as np
import pytest

from freshet.settings import Settings
from streams.aggregates import EVER
from training import parameters
from training.datasets import Log, NoData
from training.lightgcn import Parameters as Graph
from training.parameters import BadParameters, Parameters, Tuned
from training.tuning import LEAST_USERS, Later


def log(users: int) -> Log:
    """User n likes items n, n + 1 and n + 2 (of 10), one in each third of the log."""
    at = np.arange(3 * users)
    items = np.concatenate([(np.arange(users) + k) % 10 for k in range(3)])
    names = tuple(f"u{n}" for n in range(users))
    liked, never = np.ones(3 * users, bool), np.full(3 * users, EVER)
    return Log(names, tuple(f"i{n}" for n in range(10)), np.tile(np.arange(users), 3), items, at, at, liked, never)


def test_nothing_after_the_validation_is_looked_at() -> None:
    users = 2 * LEAST_USERS
    later = Later.of(log(users), users, 2 * users)
    n = np.arange(users)
    assert later.liked.shape == later.wanted.shape == (users, 10)
    assert (later.liked.toarray() == (np.arange(10) == (n % 10)[:, None])).all()
    assert (later.wanted.toarray() == (np.arange(10) == ((n + 1) % 10)[:, None])).all()
    with pytest.raises(NoData, match=f"at least {LEAST_USERS}"):
        Later.of(log(10), 10, 20)


def test_recall_counts_what_was_liked_next_and_not_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tuning.RECALLED", 1)
    users = 2 * LEAST_USERS
    later = Later.of(log(users), users, 2 * users)
    n = np.arange(users)
    known, wanted = (np.eye(10, dtype=np.float32)[(n + k) % 10] for k in (0, 1))
    assert later.recall(2 * known + wanted) == 1.0  # what is known comes first and is left out
    assert later.recall(known - wanted) == 0.0
    half = np.where((n % 2 == 0)[:, None], wanted, -wanted).astype(np.float32)
    assert later.recall(half) == pytest.approx(0.5)


def test_parameters_outlive_the_process_and_a_wrong_file_says_so(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert parameters.load(settings, 10) == Parameters()
    found = Parameters(links=31.5, graph=Graph(epochs=9, learning_rate=0.004), din_epochs=2, din_rate=1e-3)
    parameters.save(settings, Tuned(found, 60, 7, 12.5, 5_000, 10, {"links": (0.1, 0.2)}))
    assert parameters.load(settings, 10) == found
    with pytest.raises(BadParameters, match="after this training's cut"):
        parameters.load(settings, 9)
    assert [file.name for file in tmp_path.iterdir()] == [parameters.FILE]
    text = parameters.path(settings).read_text()
    for wrong in (text.replace("31.5", "-1"), text.replace("links", "lynx", 1), "{", ""):
        parameters.path(settings).write_text(wrong)
        with pytest.raises(BadParameters, match="freshet tune"):
            parameters.load(settings, 10)

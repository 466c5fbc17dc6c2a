"""Finds parameters by Optuna, on validation only: nothing after the training's own cut is looked at.

Three searches, one after the other, each with its share of the trials: EASE and LightGCN by Recall@100 of what users
liked in the part of the training data that recall has not seen, LightGCN's bad runs ended early; then DIN by NDCG@10
on the validation lists of that recall. What is found stays only where it beats what ships.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import optuna
import torch
from scipy.sparse import csr_matrix

from bentos.inputs import Floats
from feature_repo.store import open_store
from freshet.settings import Settings
from streams.catalogue import Progress
from training import fitting, item_to_item, lightgcn, parameters, rankers
from training.clock import Clock
from training.datasets import Log, NoData, Question, audit, read
from training.parameters import Parameters, Tuned
from training.pipeline import SPLIT

SEED = 7
RECALLED = 100
USERS = 5_000
"""Users that recall is judged by at most."""
LEAST_USERS = 50
SHARES = {"links": 0.2, "graph": 0.4, "DIN": 0.4}
"""Of the trials."""


def tune(settings: Settings, trials: int, split: float = SPLIT, progress: Progress | None = None) -> Tuned:
    """Search with so many trials and keep, in `FRESHET_HOME`, what is at least as good as what ships.

    `split`: the part of the data, by time, that may be looked at. Raises `NoData`.
    """
    begun = monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clock = Clock(progress)
    log, catalogue = read(settings)
    cut = int(split * len(log))
    given, scores = Parameters(), dict[str, tuple[float, float]]()
    later = Later.of(log, int(fitting.INNER * cut), int(fitting.HELD * cut))

    def search(what: str, objective: Callable[[optuna.Trial], float], shipped: dict[str, Any]) -> dict[str, Any]:
        count = max(2, round(SHARES[what] * trials))
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=SEED),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3),
        )
        study.enqueue_trial(shipped)
        with clock.step(f"tune {what}", count) as tell:
            study.optimize(objective, count, callbacks=[lambda study, trial: tell(trial.number + 1)])
        scores[what] = (float(study.trials[0].value or 0.0), float(study.best_value))
        return study.best_params

    if len(log.item_ids) <= item_to_item.CLOSED_FORM_ITEMS:
        given = msgspec.structs.replace(given, **search("links", later.links, {"links": given.links}))
    shipped = {name: getattr(given.graph, name) for name in ("epochs", "learning_rate", "negatives")}
    given = msgspec.structs.replace(given, graph=replace(given.graph, **search("graph", later.graph, shipped)))
    train, held = _lists(settings, log, cut, catalogue, given, clock)

    def din(trial: optuna.Trial) -> float:
        fitted = rankers.fit_din(
            train,
            epochs=trial.suggest_int("din_epochs", 1, 8),
            learning_rate=trial.suggest_float("din_rate", 2e-4, 1e-2, log=True),
        )
        return rankers.validate(fitted, held)

    found = search("DIN", din, {"din_epochs": given.din_epochs, "din_rate": given.din_rate})
    given = msgspec.structs.replace(given, **found)
    tuned = Tuned(given, trials, SEED, monotonic() - begun, int(log.liked.sum()), int(log.at[cut - 1]), scores)
    parameters.save(settings, tuned)
    return tuned


def _lists(
    settings: Settings, log: Log, cut: int, catalogue: fitting.Catalogue, given: Parameters, clock: Clock
) -> tuple[list[rankers.Listing], list[rankers.Listing]]:
    store = open_store(settings)

    def check(pairs: Sequence[tuple[Question, str]]) -> None:
        audit(store, pairs)

    asker = fitting.asker(settings, log, catalogue, clock)
    drafted = fitting.draft(log, cut, catalogue, asker, check, clock, given)
    train, held = ([x for x in lists if x.labels.any()] for lists in (drafted.train, drafted.held))
    if len(train) < rankers.LEAST_TRAIN or len(held) < rankers.LEAST_HELD:
        raise NoData("too few lists have a liked item among their candidates: send more events, and tune again")
    return train, held


@dataclass(frozen=True, eq=False)
class Later:
    """What users with a history liked next: `liked` and `wanted` are 0/1 [users, items], row by row the same users."""

    whole: csr_matrix
    liked: csr_matrix
    wanted: csr_matrix

    @classmethod
    def of(cls, log: Log, inner: int, held: int) -> "Later":
        before, until = log.matrix(inner), log.matrix(held)
        new = (until - before).tocsr()
        new.eliminate_zeros()
        some = np.flatnonzero((before.getnnz(1) > 0) & (new.getnnz(1) > 0))
        if len(some) < LEAST_USERS:
            raise NoData(f"{len(some)} users liked something before and after, at least {LEAST_USERS} are needed")
        if len(some) > USERS:
            some = np.sort(np.random.default_rng(SEED).choice(some, USERS, replace=False))
        return cls(before, before[some], new[some])

    def recall(self, scores: Floats) -> float:
        """Mean Recall@100 of scores [users, items]; what is known of a user is left out."""
        scores[self.liked.nonzero()] = -np.inf
        best = np.argpartition(-scores, min(RECALLED, scores.shape[1] - 1), axis=1)[:, :RECALLED]
        rows = np.repeat(np.arange(len(scores)), best.shape[1])
        hits = np.asarray(self.wanted[rows, best.ravel()]).reshape(best.shape).sum(1)
        return float(np.mean(hits / np.minimum(self.wanted.getnnz(1), RECALLED)))

    def links(self, trial: optuna.Trial) -> float:
        weights = item_to_item.ease(self.whole, trial.suggest_float("links", 10.0, 5_000.0, log=True))
        return self.recall((self.liked @ weights).toarray())

    def graph(self, trial: optuna.Trial) -> float:
        given = lightgcn.Parameters(
            epochs=trial.suggest_int("epochs", 4, 40),
            learning_rate=trial.suggest_float("learning_rate", 2e-3, 0.1, log=True),
            negatives=trial.suggest_int("negatives", 128, 2_048, log=True),
        )
        degrees = np.maximum(np.asarray(self.whole.sum(0)).ravel(), 1.0)

        def score(items: npt.NDArray[np.float32]) -> float:
            folded = self.liked.multiply(1 / np.sqrt(degrees)[None, :]).tocsr() @ items
            return self.recall(np.asarray(folded @ items.T, dtype=np.float32))

        def after(epoch: int, items: torch.Tensor) -> bool:
            if epoch % 2 == 0:
                trial.report(score(items.numpy()), epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return False

        return score(lightgcn.fit(self.whole, given, after).items)

"""Recall on Gowalla, LightGCN's split: `python -m benchmarks.recall.gowalla --data FOLDER [--tune]`.

FOLDER holds `train.npz` and `test.npz`, 0/1 matrices of users and items as `scipy.sparse.save_npz` writes them (the
dataset is not ours to ship: https://github.com/gusye1234/LightGCN-PyTorch has it as text). All items are ranked,
those of the user's training part left out; Recall@20 and NDCG@20 are trec_eval's, which are the paper's. `--tune` never
opens the test part: it holds a tenth of each user's training pairs out, and prints what each choice is worth there.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytrec_eval
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix, load_npz

from bentos.inputs import Floats
from training.blend import Blend, Parameters, fit, standardised

BATCH, K = 512, 20
SAMPLE = 4_000
"""Users that a choice is judged by."""
HELD_OUT = 0.1
Scorer = Callable[[csr_matrix], Floats]


def judge(scorer: Scorer, train: csr_matrix, held: csr_matrix, users: np.ndarray) -> tuple[float, float]:
    """Recall@20 and NDCG@20, the mean over the users."""
    truth, found = {}, {}
    for begin in range(0, len(users), BATCH):
        some = users[begin : begin + BATCH]
        mine = train[some]
        scores = scorer(mine)
        scores[mine.nonzero()] = -np.inf
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        for n, user in enumerate(some):
            truth[str(user)] = {str(i): 1 for i in held.indices[held.indptr[user] : held.indptr[user + 1]]}
            found[str(user)] = {str(i): float(scores[n, i]) for i in best[n]}
    measured = pytrec_eval.RelevanceEvaluator(truth, {"recall.20", "ndcg_cut.20"}).evaluate(found).values()
    return float(np.mean([m["recall_20"] for m in measured])), float(np.mean([m["ndcg_cut_20"] for m in measured]))


def split(train: csr_matrix, seed: int = 0) -> tuple[csr_matrix, csr_matrix]:
    """A tenth of the pairs of each user with at least five held out."""
    rng = np.random.default_rng(seed)
    out = np.zeros(train.nnz, dtype=bool)
    for user in range(train.shape[0]):
        begin, end = train.indptr[user], train.indptr[user + 1]
        if end - begin >= 5:
            out[begin + rng.choice(end - begin, max(1, round((end - begin) * HELD_OUT)), replace=False)] = True
    pairs = train.tocoo()
    left, held = (
        csr_matrix((pairs.data[mask], (pairs.row[mask], pairs.col[mask])), shape=train.shape) for mask in (~out, out)
    )
    return left, held


def tune(train: csr_matrix) -> None:
    """One kind of parameter after another, each chosen with the others at their defaults."""
    left, held = split(train)
    rng = np.random.default_rng(0)
    users = np.sort(rng.choice(np.flatnonzero(np.diff(held.indptr) > 0), SAMPLE, replace=False))
    table = Table(
        "view", "choice", "Recall@20", "NDCG@20", title=f"{SAMPLE:,} users, pairs held out of the training part"
    )
    console = Console()

    def say(view: str, choice: str, scorer: Scorer) -> None:
        recall, ndcg = judge(scorer, left, held, users)
        table.add_row(view, choice, f"{recall:.4f}", f"{ndcg:.4f}")
        console.print(f"{view:11} {choice:60} {recall:.4f} {ndcg:.4f}")

    small = Parameters(factors=2, vectors=2, iterations=1)
    for user_power in (0.0, 0.5, 0.75, 1.0):
        for liked_power in (0.5, 0.75, 1.0):
            for asked_power in (0.15, 0.25, 0.35, 0.5):
                powers = replace(small, user_power=user_power, liked_power=liked_power, asked_power=asked_power)
                say("neighbours", f"{user_power=} {liked_power=} {asked_power=}", fit(left, powers).neighbours)
    for factors in (256, 512):
        for confidence in (10.0, 20.0, 40.0):
            for regularisation in (0.05, 0.5):
                chosen = replace(
                    small, factors=factors, confidence=confidence, regularisation=regularisation, iterations=12
                )
                say("factors", f"{factors=} {confidence=} {regularisation=}", fit(left, chosen).factors)
    for vectors in (256, 512, 1_024):
        say("low-pass", f"{vectors=}", fit(left, replace(small, vectors=vectors)).low_pass)
    model = fit(left)
    for factors_weight in (0.4, 0.6, 0.8, 1.0):
        for low_pass_weight in (0.0, 0.1, 0.2, 0.3):
            model.parameters = replace(model.parameters, factors_weight=factors_weight, low_pass_weight=low_pass_weight)
            say("all", f"{factors_weight=} {low_pass_weight=}", model.scores)
    console.print(table)


def views(model: Blend) -> dict[str, Scorer]:
    """The rows of the table, declared here: what is put to the test part, once."""
    p = model.parameters
    return {
        "popularity": lambda mine: np.tile(model.degrees.astype(np.float32), (mine.shape[0], 1)),
        "low-pass": model.low_pass,
        "ALS": model.factors,
        "neighbours": model.neighbours,
        "neighbours + low-pass": lambda mine: (
            standardised(model.neighbours(mine)) + p.low_pass_weight * standardised(model.low_pass(mine))
        ),
        "all three": model.scores,
    }


def test(train: csr_matrix, held: csr_matrix) -> None:
    """Fit on the training part, and judge by the test part."""
    started = time.monotonic()
    model = fit(train)
    trained = time.monotonic() - started
    users = np.flatnonzero(np.diff(held.indptr) > 0)
    table = Table(
        "model", "Recall@20", "NDCG@20", "ms a user", title=f"{len(users):,} users, all {train.shape[1]:,} items ranked"
    )
    for name, scorer in views(model).items():
        begun = time.monotonic()
        recall, ndcg = judge(scorer, train, held, users)
        table.add_row(name, f"{recall:.4f}", f"{ndcg:.4f}", f"{(time.monotonic() - begun) / len(users) * 1e3:.1f}")
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(model.parameters)
    print(f"trained in {trained:.0f} s, {time.monotonic() - started:.0f} s in all, {peak:.1f} GB at its peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tune", action="store_true", help="choose on a split of the training part instead")
    given = parser.parse_args()
    train = load_npz(given.data / "train.npz").tocsr().astype(np.float32)
    if given.tune:
        tune(train)
    else:
        test(train, load_npz(given.data / "test.npz").tocsr())


if __name__ == "__main__":
    main()

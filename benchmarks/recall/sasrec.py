"""SASRec of RecTools on MovieLens 100K, by the protocol of `freshet train`'s prequential table.

RecTools needs an older numpy than Freshet, so it has an environment of its own and this file imports nothing of ours:

    python3.11 -m venv /tmp/sasrec && /tmp/sasrec/bin/pip install "rectools[torch]"
    /tmp/sasrec/bin/python benchmarks/recall/sasrec.py --data ml-100k

The first four fifths by (time, user, item) are fitted on; each rating of at least 4 in the last fifth is one question,
asked with the user's newest 50 likes before it (live), all that the user rated by then left out, all items ranked.
Size, loss and epochs are chosen on the last tenth of the first four fifths, by models fitted on the rest of it. EASE,
live too, is the link to our table: it must come out as it does there.
"""

import argparse
import logging
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

USERS, ITEMS, TRAIN, HELD, HISTORY, K = 943, 1_682, 0.8, 0.9, 50, 10
GRID = [
    (64, "BCE", 40),
    (64, "softmax", 40),
    (64, "softmax", 80),
    (128, "softmax", 40),
    (128, "softmax", 80),
    (256, "softmax", 40),
]
"""Fewer epochs were worse: 64 factors, softmax, 10 and 20 epochs .0553 and .0538 on validation."""
EASE_L2 = 300.0
Question = tuple[list[int], list[int], int]
"""The likes, newest first; all that was rated; the item that was liked next."""


def questions(data: np.ndarray, start: int) -> list[Question]:
    """Before each like from row `start` on. `data` is sorted; columns user, item, rating, time."""
    likes: dict[int, list[int]] = {}
    rated: dict[int, list[int]] = {}
    found = []
    for n, (user, item, rating, _) in enumerate(data.tolist()):
        mine, seen = likes.setdefault(user, []), rated.setdefault(user, [])
        if rating >= 4:
            if n >= start:
                found.append((mine[: -HISTORY - 1 : -1], list(seen), item))
            mine.append(item)
        seen.append(item)
    return found


def frame(liked: np.ndarray) -> pd.DataFrame:
    """RecTools' interactions."""
    return pd.DataFrame(
        {
            Columns.User: liked[:, 0],
            Columns.Item: liked[:, 1],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(np.arange(len(liked)), unit="s"),  # the order, without ties
        }
    )


def gain(best: list[int], seen: set[int], wanted: int) -> float:
    """NDCG@10 of one question."""
    left = [item for item in best if item not in seen][:K]
    return 1 / np.log2(left.index(wanted) + 2) if wanted in left else 0.0


def sasrec(liked: np.ndarray, asked: list[Question], factors: int, loss: str, epochs: int) -> tuple[np.ndarray, float]:
    """NDCG@10 of each question, and the seconds of fitting."""
    seed_everything(1, verbose=False)
    start = perf_counter()
    model = SASRecModel(
        n_factors=factors, n_blocks=2, n_heads=2, session_max_len=HISTORY, loss=loss, lr=0.001, batch_size=128,
        n_negatives=64 if loss == "BCE" else 1, item_net_block_types=_ids(), deterministic=True,
        get_trainer_func=lambda: Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ),
    )  # fmt: skip
    model.fit(Dataset.construct(frame(liked)))
    took = perf_counter() - start
    known = set(liked[:, 1].tolist())
    gains = np.zeros(len(asked))
    for first in range(0, len(asked), 2_000):
        some = {n: asked[n] for n in range(first, min(first + 2_000, len(asked)))}
        rows = [(n, item) for n, (mine, _, _) in some.items() for item in reversed(mine) if item in known]
        if not rows:
            continue
        told = frame(np.array(rows))
        answers = model.recommend(
            users=told[Columns.User].unique(), dataset=Dataset.construct(told), k=len(known), filter_viewed=False
        )
        for n, best in answers.groupby(Columns.User, sort=False)[Columns.Item]:
            _, seen, wanted = some[n]
            gains[n] = gain(best.tolist(), set(seen), wanted)
    return gains, took


def _ids() -> tuple[type, ...]:
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    return (IdEmbeddingsItemNet,)


def ease(liked: np.ndarray, asked: list[Question]) -> np.ndarray:
    """NDCG@10 of each question (Steck, WWW 2019)."""
    x = np.zeros((USERS, ITEMS))
    x[liked[:, 0], liked[:, 1]] = 1
    inverse = np.linalg.inv(x.T @ x + EASE_L2 * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    out = []
    for mine, seen, wanted in asked:
        best = np.argsort(-weights[mine].sum(0), kind="stable").tolist() if mine else list(range(ITEMS))
        out.append(gain(best, set(seen), wanted))
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with u.data")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(2)
    data = np.loadtxt(given.data / "u.data", dtype=np.int64)
    data = data[np.lexsort((data[:, 1], data[:, 0], data[:, 3]))] - [1, 1, 0, 0]
    cut = int(TRAIN * len(data))
    held = int(HELD * cut)
    inner, validation = data[:held], questions(data[:cut], held)
    liked = inner[inner[:, 2] >= 4]
    chosen = []
    for choice in GRID:
        gains, took = sasrec(liked, validation, *choice)
        chosen.append((float(gains.mean()), choice))
        print(
            f"validation  factors {choice[0]:3}  {choice[1]:7}  epochs {choice[2]:2}  {gains.mean():.4f}  {took:.0f} s"
        )
    best, choice = max(chosen)
    train, test = data[:cut], questions(data, cut)
    liked = train[train[:, 2] >= 4]
    gains, took = sasrec(liked, test, *choice)
    chance = np.random.default_rng(1)
    draws = [float(gains[chance.integers(len(gains), size=len(gains))].mean()) for _ in range(1_000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    print(f"test, {len(test):,} questions: EASE {ease(liked, test).mean():.4f}")
    print(f"SASRec {choice} {gains.mean():.4f} [{low:.4f}, {high:.4f}], fitted in {took:.0f} s (validation {best:.4f})")


if __name__ == "__main__":
    main()

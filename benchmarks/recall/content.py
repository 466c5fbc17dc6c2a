"""What content adds to LightGCN, and how it was chosen: `python -m benchmarks.recall.content --data FOLDER`.

FOLDER holds MovieLens 100K (https://grouplens.org/datasets/movielens/100k/). The last fifth by time is never looked
at. `all`: NDCG@10 of the questions of `benchmarks.recall.movielens`. `cold`: a fifth of the items, drawn three times,
loses all its likes; each user with five others is asked which of those were liked, among them alone, by NDCG@20; equal
scores fall by chance, as the catalogue's order tells of popularity. LightGCN has three seeds, one for each draw.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.recall.movielens import ITEMS, Question, ndcg, split
from bentos.inputs import Floats
from bentos.stages.content import features
from bentos.stages.recall import LightGCN
from streams.catalogue import Item
from streams.replay.movielens import MovieLens
from training import content, lightgcn

SEEDS = (7, 8, 9)
PRIORS, RIDGES = (5.0, 20.0, 80.0), (5.0, 20.0, 60.0, 200.0)
LEAST, K = 5, 20
Model = Callable[[LightGCN, np.ndarray], Floats]
"""The items' vectors, from what was learned and how many liked each."""


def chances(liked: csr_matrix, cold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each user's newest 50 likes that are not cold, and those that are."""
    for user in range(liked.shape[0]):
        mine = liked[user].indices
        if (~cold[mine]).sum() >= LEAST and cold[mine].any():
            yield mine[~cold[mine]][-50:], mine[cold[mine]]


def ndcg_cold(graph: LightGCN, liked: csr_matrix, cold: np.ndarray) -> float:
    among, found = np.random.default_rng(1).permutation(np.flatnonzero(cold)), []
    gains = 1 / np.log2(np.arange(2, K + 2))
    for likes, wanted in chances(liked, cold):
        scores = graph.items[among] @ graph.user(likes, np.ones(len(likes), np.float32))
        best = among[np.argsort(-scores, kind="stable")[:K]]
        found.append((np.isin(best, wanted) * gains).sum() / gains[: len(wanted)].sum())
    return float(np.mean(found))


def ndcg_all(graph: LightGCN, questions: list[Question]) -> float:
    asked = [np.array(likes, np.int64) for likes, _, _ in questions]
    return ndcg(np.stack([graph.scores(rows, np.ones(len(rows), np.float32)) for rows in asked]), questions)


def models(items: list[Item]) -> Iterator[tuple[str, Model]]:
    words = features(items)
    categories = features([Item(item.item_id, "", item.categories) for item in items])
    hot = (categories > 0).astype(np.float32)

    def mean(graph: LightGCN, likes: np.ndarray) -> Floats:
        known = likes > 0
        each = hot[known].T @ graph.items[known] / np.maximum(np.asarray(hot[known].sum(0)).T, 1.0)
        guessed = hot @ each / np.maximum(np.asarray(hot.sum(1)), 1.0)
        return np.where(known[:, None], graph.items, guessed).astype(np.float32)

    def fitted(said: csr_matrix, prior: float, ridge: float) -> Model:
        return lambda graph, likes: content.fit(graph, likes, said, prior, ridge)[0].items

    yield "as learned: noise where nobody liked", lambda graph, likes: graph.items
    yield "0 where nobody liked", lambda graph, likes: graph.items * (likes > 0)[:, None]
    yield "the mean of its categories there", mean
    yield "no content", fitted(csr_matrix(words.shape, dtype=np.float32), content.PRIOR, content.RIDGE)
    yield "categories", fitted(categories, content.PRIOR, content.RIDGE)
    yield "**categories and words**", fitted(words, content.PRIOR, content.RIDGE)
    for prior, ridge in product(PRIORS, RIDGES):
        yield f"categories and words, prior {prior:.0f}, ridge {ridge:.0f}", fitted(words, prior, ridge)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    liked, questions = split(np.loadtxt(data / "u.data", dtype=np.int64))
    items = sorted(MovieLens(data).items(), key=lambda item: int(item.item_id))
    assert [int(item.item_id) for item in items] == list(range(1, ITEMS + 1))
    runs = []
    for seed in SEEDS:
        cold = np.random.default_rng(seed).random(ITEMS) < 0.2
        warm = csr_matrix(liked.multiply(~cold[None, :]))
        warm.eliminate_zeros()
        given = lightgcn.Parameters(seed=seed)
        runs.append((cold, lightgcn.fit(liked, given), warm, lightgcn.fit(warm, given)))
    print("| items' vectors | all | cold |\n|---|---|---|")
    for name, model in models(items):
        every, few = [], []
        for cold, whole, warm, less in runs:
            every.append(ndcg_all(LightGCN(model(whole, _likes(liked)), whole.degrees), questions))
            few.append(ndcg_cold(LightGCN(model(less, _likes(warm)), less.degrees), liked, cold))
        print(f"| {name} | {np.mean(every):.4f} | {np.mean(few):.4f} |", flush=True)


def _likes(liked: csr_matrix) -> np.ndarray:
    return np.asarray(liked.sum(0)).ravel()


if __name__ == "__main__":
    main()

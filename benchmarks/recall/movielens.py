"""How `training.baselines.BLEND` was chosen: `python -m benchmarks.recall.movielens --data FOLDER`.

FOLDER holds MovieLens 100K's `u.data` (https://grouplens.org/datasets/movielens/100k/). The last fifth by (time, user,
item) is never looked at. Models are fitted on nine tenths of the rest; each rating of at least 4 in the last tenth is
one question, asked with the user's newest 50 likes before it, all that the user rated by then left out.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytrec_eval
from scipy.sparse import csr_matrix

from bentos.inputs import Floats
from training import blend, item_to_item, lightgcn
from training.baselines import BLEND, NEIGHBOURS

USERS, ITEMS = 943, 1_682
TRAIN, HELD, HISTORY, K = 0.8, 0.9, 50, 10
Question = tuple[list[int], list[int], int]
"""The likes, newest first; all that was rated; the item that was liked next."""


def split(data: np.ndarray) -> tuple[csr_matrix, list[Question]]:
    """What to fit on, and the questions after it. `data` is int64 [n, 4]: user, item, rating, time."""
    data = data[np.lexsort((data[:, 1], data[:, 0], data[:, 3]))]
    data = data[: int(TRAIN * len(data))]
    held = int(HELD * len(data))
    fitted = data[:held][data[:held, 2] >= 4] - [1, 1, 0, 0]
    liked = csr_matrix((np.ones(len(fitted), np.float32), (fitted[:, 0], fitted[:, 1])), shape=(USERS, ITEMS))
    likes: dict[int, list[int]] = {}
    rated: dict[int, list[int]] = {}
    questions = []
    for n, (user, item, rating, _) in enumerate((data - [1, 1, 0, 0]).tolist()):
        mine, seen = likes.setdefault(user, []), rated.setdefault(user, [])
        if rating >= 4:
            if n >= held:
                questions.append((mine[: -HISTORY - 1 : -1], list(seen), item))
            mine.append(item)
        seen.append(item)
    return liked, questions


def ndcg(scores: Floats, questions: list[Question]) -> float:
    """NDCG@10, equal scores in the catalogue's order."""
    found = {}
    for n, (_, seen, _) in enumerate(questions):
        mine = scores[n].astype(np.float64)
        mine[seen] = -np.inf
        best = np.argsort(-mine, kind="stable")[:K]
        found[str(n)] = {str(i): float(K - place) for place, i in enumerate(best)}
    truth = {str(n): {str(item): 1} for n, (_, _, item) in enumerate(questions)}
    measured = pytrec_eval.RelevanceEvaluator(truth, {"ndcg_cut.10"}).evaluate(found).values()
    return float(np.mean([m["ndcg_cut_10"] for m in measured]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    liked, questions = split(np.loadtxt(parser.parse_args().data / "u.data", dtype=np.int64))
    ends = np.cumsum([0] + [len(likes) for likes, _, _ in questions])
    rows = np.concatenate([likes for likes, _, _ in questions]).astype(np.int64)
    histories = csr_matrix((np.ones(len(rows), np.float32), rows, ends), shape=(len(questions), ITEMS))
    graph = lightgcn.fit(liked)
    model = blend.fit(liked, replace(BLEND, vectors=64))

    def blended(factors: float, low_pass: float) -> Callable[[], Floats]:
        def scores() -> Floats:
            model.parameters = replace(BLEND, factors_weight=factors, low_pass_weight=low_pass)
            return model.scores(histories)

        return scores

    models: dict[str, Callable[[], Floats]] = {
        "item CF": lambda: (histories @ item_to_item.cosine(liked, NEIGHBOURS)).toarray(),
        "EASE": lambda: (histories @ item_to_item.ease(liked)).toarray(),
        "LightGCN": lambda: np.stack(
            [graph.scores(np.array(x, np.int64), np.ones(len(x), np.float32)) for x, _, _ in questions]
        ),
        "blend: factors": lambda: model.factors(histories),
        "blend: low-pass": lambda: model.low_pass(histories),
    }
    models |= {f"blend: {f} factors, {p} low-pass": blended(f, p) for f in (0.0, 0.2, 0.4, 0.8) for p in (0.0, 0.1)}
    for user in (0.0, 0.5, 0.75):
        for liked_power in (0.5, 0.75):
            for asked in (0.25, 0.5):
                powers = replace(BLEND, user_power=user, liked_power=liked_power, asked_power=asked, iterations=1)
                models[f"neighbours: {user} {liked_power} {asked}"] = lambda p=powers: (  # type: ignore[misc]
                    blend.fit(liked, p).neighbours(histories)
                )
    for size in (32, 64, 128):
        for confidence in (5.0, 10.0, 20.0, 40.0):
            for regularisation in (0.1, 10.0):
                solved = replace(BLEND, factors=size, confidence=confidence, regularisation=regularisation)
                models[f"factors: {size} {confidence} {regularisation}"] = lambda p=solved: (  # type: ignore[misc]
                    blend.fit(liked, p).factors(histories)
                )
    for name, scores in models.items():
        print(f"{name:30} {ndcg(scores(), questions):.4f}", flush=True)


if __name__ == "__main__":
    main()

"""What an answer of the cascade costs as the catalogue grows: `python -m benchmarks.serving.catalogue`.

In this process, one thread, no HTTP and no Redis: `Cascade.recommend` on catalogues of made-up items. Parameters are
random, as their values cost nothing; sizes are those of a trained bundle (64 dimensions, 16 of taste, 100 links an
item, 300 candidates, k = 20), users have viewed and liked 50 items. Popularity and links follow Zipf's law; 1% of the
items are new.
"""

import argparse
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from bentos.cascade import Ask, Cascade
from bentos.inputs import ITEM_COLUMNS, ItemMatrix, input_names
from bentos.stages.content import BUCKETS, Tower
from bentos.stages.recall import SOURCES, ItemToItem, LightGCN, Recall
from bentos.taste import Taste, unit
from feature_repo.features import user as user_profile
from streams.aggregates import SECOND
from streams.events import Event
from training.networks import DinModule, RankNetModule

DIM, TASTES, LINKS, CATEGORIES, LIKED, USERS = 64, 16, 100, 40, 50, 200
NOW = 1_780_000_000 * SECOND
STAGES = ("recall", "rank", "rerank", "total")


def matrix(items: int, rng: np.random.Generator) -> ItemMatrix:
    ids = tuple(f"i{n}" for n in range(items))
    values = np.zeros((items, len(ITEM_COLUMNS)))
    popularity = rng.permutation(50_000.0 / np.arange(1, items + 1) ** 0.8)
    for j, name in enumerate(ITEM_COLUMNS):
        values[:, j] = rng.poisson(popularity * (0.1 if "1h" in name else 1.0))
    new = rng.random(items) < 0.01
    values[:, ITEM_COLUMNS.index("age_s")] = np.where(new, 3_600.0, 30 * 86_400.0)
    categories = np.zeros((items, CATEGORIES), np.float32)
    categories[np.arange(items), rng.integers(CATEGORIES, size=items)] = 1.0
    names = tuple(f"category-{c:02}" for c in range(CATEGORIES))
    return ItemMatrix(NOW, ids, {i: n for n, i in enumerate(ids)}, values, names, categories, [None] * items)


def cascade(items: ItemMatrix, rng: np.random.Generator) -> Cascade:
    n = len(items)
    columns = np.minimum(rng.zipf(1.3, size=n * LINKS) - 1, n - 1).astype(np.int32)
    starts = np.arange(n + 1, dtype=np.int32) * LINKS
    links = csr_matrix((rng.random(n * LINKS, dtype=np.float32), rng.permutation(n).astype(np.int32)[columns], starts))
    links.sum_duplicates()
    links.resize((n, n))
    vectors = rng.normal(size=(n, DIM)).astype(np.float32)
    tower = Tower(rng.normal(size=(BUCKETS, DIM)).astype(np.float32))
    torch.manual_seed(1)
    inputs = len(input_names(SOURCES))
    return Cascade(
        Recall(items.index, ItemToItem(links), LightGCN(vectors, np.ones(n, np.float32)), tower),
        vectors,
        tower,
        Taste(unit(rng.normal(size=(n, TASTES)).astype(np.float32))),
        DinModule(inputs, DIM).din(),
        RankNetModule(inputs + 1).ranknet(),
        300,
        0.1,
    )


def user(items: int, rng: np.random.Generator) -> dict[str, Any]:
    some = []
    for n in range(LIKED):
        item, at = int(rng.integers(items)), NOW - (LIKED - n) * 3_600 * SECOND
        for kind in ("view", "click"):
            some.append(Event(f"{kind}{n}", "u", f"i{item}", kind, at, at, None, (f"category-{item % CATEGORIES:02}",)))
    return user_profile.values(user_profile.advance(None, some, 0), NOW)


def measure(items: int) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    """Milliseconds of each answer, and the median of each stage."""
    rng = np.random.default_rng(7)
    catalogue = matrix(items, rng)
    model, users = cascade(catalogue, rng), [user(items, rng) for _ in range(USERS)]
    for values in users[:5]:
        model.recommend(Ask("u", values, catalogue, 20))
    took, stages = [], dict[str, list[float]]()
    for values in users:
        start = perf_counter()
        answer = model.recommend(Ask("u", values, catalogue, 20))
        took.append((perf_counter() - start) * 1_000)
        assert (len(answer.picks), answer.candidates) == (20, 300)
        for name, ms in answer.stages_ms.items():
            stages.setdefault(name, []).append(ms)
    return np.array(took), {name: float(np.median(ms)) for name, ms in stages.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[6_000, 60_000, 1_000_000])
    table = Table("items", "p50 ms", "p99 ms", *(f"{name} ms" for name in STAGES))
    with threadpool_limits(1):
        for items in parser.parse_args().items:
            took, stages = measure(items)
            table.add_row(
                f"{items:,}",
                *(f"{np.percentile(took, p):.2f}" for p in (50, 99)),
                *(f"{stages[name]:.2f}" for name in STAGES),
            )
    Console().print(table)


if __name__ == "__main__":
    main()

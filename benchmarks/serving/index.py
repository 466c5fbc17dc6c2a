"""Would an index be faster than LightGCN's exact scan, and what would it miss? `python -m benchmarks.serving.index`.

faiss is no part of Freshet; put it beside, for this command only:

    pip install --no-deps --target /tmp/faiss faiss-cpu==1.15.1
    PYTHONPATH=/tmp/faiss python -m benchmarks.serving.index --items 1000000

Of recall's six sources only `lightgcn` scores by inner products, so only its scan could be replaced. One thread asks,
two build. Item vectors are made up, of 64 dimensions: "even" ones are normal, which is the hardest case for an index as
nothing lies near anything; "tastes" lie around 1,000 centres, with lengths that differ, which is nearer to what
training gives. Users have liked 50 items, of 3 tastes where there are any.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from time import perf_counter

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bentos.inputs import Floats, Indices
from bentos.stages.recall import LightGCN, Products, Scores

DIM, LIKED, USERS, TASTES, WANTED = 64, 50, 200, 1_000, 300


Made = Callable[[int, np.random.Generator], tuple[Floats, list[Indices]]]
"""Item vectors, float32 [items, 64], and the rows that each user has liked."""


@dataclass(frozen=True)
class World:
    """Items and the vectors of those who ask, float32 [USERS, 64]."""

    graph: LightGCN
    users: Floats


def even(items: int, rng: np.random.Generator) -> tuple[Floats, list[Indices]]:
    vectors = rng.normal(size=(items, DIM)).astype(np.float32)
    return vectors, [rng.integers(items, size=LIKED) for _ in range(USERS)]


def tastes(items: int, rng: np.random.Generator) -> tuple[Floats, list[Indices]]:
    of = np.sort(rng.integers(TASTES, size=items))
    vectors = rng.normal(size=(TASTES, DIM))[of] + rng.normal(scale=0.7, size=(items, DIM))
    vectors *= rng.lognormal(sigma=0.3, size=(items, 1))
    starts = np.searchsorted(of, np.arange(TASTES + 1))
    liked = []
    for _ in range(USERS):
        mine = rng.choice(TASTES, 3, replace=False)
        liked.append(np.concatenate([rng.integers(starts[t], starts[t + 1], size=LIKED // 3 + 1) for t in mine]))
    return vectors.astype(np.float32), [rows[:LIKED] for rows in liked]


KINDS: dict[str, Made] = {"even": even, "tastes": tastes}


def world(made: Made, items: int) -> World:
    vectors, liked = made(items, np.random.default_rng(7))
    graph = LightGCN(vectors, np.ones(items, np.float32))
    return World(graph, np.stack([graph.user(rows, np.ones(LIKED, np.float32)) for rows in liked]))


def exact(made: World) -> tuple[list[Indices], list[float], list[float]]:
    """The best that are allowed, as serving finds them, and the times of that and of all products instead, in ms."""
    allowed = np.ones(len(made.graph.items), dtype=bool)
    found, took, all_took = list[Indices](), list[float](), list[float]()
    for user in made.users:
        start = perf_counter()
        found.append(Products(made.graph, user).best(allowed, WANTED))
        took.append((perf_counter() - start) * 1_000)
        start = perf_counter()
        plain = Scores(made.graph.items @ user).best(allowed, WANTED)
        all_took.append((perf_counter() - start) * 1_000)
        assert np.array_equal(found[-1], plain)
    return found, took, all_took


def indexes(vectors: Floats) -> Iterator[tuple[str, float, faiss.Index]]:
    """Indexes of the vectors, each under several settings of how far it searches, and the seconds it took to build."""
    lists = int(4 * np.sqrt(len(vectors)))
    for kind, setting, values in (
        ("Flat", None, (0,)),
        (f"IVF{lists},Flat", "nprobe", (16, 64, 256)),
        ("HNSW32,Flat", "efSearch", (300, 1_000, 3_000)),
    ):
        start = perf_counter()
        index = faiss.index_factory(DIM, kind, faiss.METRIC_INNER_PRODUCT)
        if setting == "nprobe":
            index.train(vectors[:: max(1, len(vectors) // (40 * lists))])
        if setting == "efSearch":
            index.hnsw.efConstruction = 80
        index.add(vectors)
        built = perf_counter() - start
        for value in values:
            if setting is not None:
                faiss.ParameterSpace().set_index_parameter(index, setting, value)
            yield kind if setting is None else f"{kind} {setting} {value}", built, index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[60_000, 250_000, 1_000_000])
    parser.add_argument("--kind", choices=sorted(KINDS), nargs="+", default=sorted(KINDS))
    asked = parser.parse_args()
    for kind, items in product(asked.kind, asked.items):
        made = world(KINDS[kind], items)
        table = Table(
            "search", "p50 ms", "p99 ms", f"recall@{WANTED}", "MB", "built s", title=f"{kind}, {items:,} items"
        )
        with threadpool_limits(1):
            exact(made)
            right, took, all_took = exact(made)
        row(table, "exact, as served", took, 1.0, made.graph.items.nbytes, 0.0)
        row(table, "exact, by all products", all_took, 1.0, made.graph.items.nbytes, 0.0)
        faiss.omp_set_num_threads(2)
        for name, built, index in indexes(made.graph.items):
            faiss.omp_set_num_threads(1)
            times, hits = list[float](), 0
            for user, best in zip(made.users, right, strict=True):
                start = perf_counter()
                _, rows = index.search(user[None], WANTED)
                times.append((perf_counter() - start) * 1_000)
                hits += len(np.intersect1d(rows[0], best))
            row(table, name, times, hits / sum(map(len, right)), len(faiss.serialize_index(index)), built)
            faiss.omp_set_num_threads(2)
        Console(width=110).print(table)


def row(table: Table, name: str, took: list[float], recall: float, size: float, built: float) -> None:
    p50, p99 = np.percentile(took, [50, 99])
    table.add_row(name, f"{p50:.2f}", f"{p99:.2f}", f"{recall:.3f}", f"{size / 1e6:,.0f}", f"{built:.0f}")


if __name__ == "__main__":
    main()

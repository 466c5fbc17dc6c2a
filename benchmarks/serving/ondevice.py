"""What an export takes as the catalogue grows, and how quickly it answers: `python -m benchmarks.serving.ondevice`.

The made-up catalogues, users and parameters of `benchmarks.serving.catalogue`; the export answers by the same values of
the user, one thread. "The cascade's": how many of the cascade's first ten the device names, parameters being random.

`--gowalla FOLDER` (as `benchmarks.recall.gowalla` takes it) instead tells what cutting links costs item-to-item on real
data: Recall@20 on the test part with as many links an item as training keeps, and with fewer, in int8.
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix, load_npz
from threadpoolctl import threadpool_limits

from benchmarks.recall.gowalla import SAMPLE, judge
from benchmarks.serving.catalogue import USERS, cascade, matrix, user
from bentos.bundle import Bundle
from bentos.cascade import Ask
from bentos.ondevice.export import MOST_MB, NoExport, export
from bentos.ondevice.recommend import Device
from bentos.stages.rerank import Keep
from training.item_to_item import LARGE, LINKS, neighbours

WARM = 5
CUT = (100, 64, 32, 16, 8)


def measure(items: int, most_mb: float) -> list[str]:
    """One row of the table."""
    rng = np.random.default_rng(7)
    known = matrix(items, rng)
    model, users = cascade(known, rng), [user(items, rng) for _ in range(USERS)]
    plain = replace(model, reranker=Keep(), diversity=0.0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = export(Path(folder), Bundle(model, {}, "0"), known, most_mb)
        except NoExport as error:
            return [f"{items:,}", "refused", "", "", "", "", "", str(error)]
        start = perf_counter()
        device = Device(Path(folder))
        loaded = perf_counter() - start
    took, shared = [], []
    for n, values in enumerate(users[:WARM] + users):
        start = perf_counter()
        picks = device.answer(values, 20)
        if n >= WARM:
            took.append((perf_counter() - start) * 1_000)
            theirs = {pick.item_id for pick in plain.recommend(Ask("u", values, known, 10)).picks}
            shared.append(len(theirs & {pick.item_id for pick in picks[:10]}) / len(theirs))
    size = sum(made.bytes.values()) / 1e6
    times = (f"{np.percentile(took, p):.1f}" for p in (50, 99))
    links = f"{made.links} of {made.links_of}"
    return [f"{items:,}", f"{size:.2f}", made.form, links, f"{loaded:.2f}", *times, f"{np.mean(shared):.1%}"]


def few(weights: csr_matrix, links: int) -> csr_matrix:
    """The strongest links of each row, in int8 with a scale a row, as an export has them."""
    kept = weights.copy()
    for begin, end in pairwise(weights.indptr.tolist()):
        row = kept.data[begin:end]
        row[np.argsort(-np.abs(row), kind="stable")[links:]] = 0.0
        scale = max(np.abs(row).max(initial=0.0), 1e-12) / 127
        row[:] = np.round(row / scale) * scale
    kept.eliminate_zeros()
    return kept


def cutting(folder: Path) -> Table:
    """Item-to-item of Gowalla with fewer links."""
    train, held = (load_npz(folder / f"{part}.npz").tocsr().astype(np.float32) for part in ("train", "test"))
    users = np.flatnonzero(np.diff(held.indptr) > 0)
    users = np.sort(np.random.default_rng(0).choice(users, SAMPLE, replace=False))
    whole = neighbours(train, LINKS, LARGE)
    table = Table("links", "Recall@20", "NDCG@20", title=f"{SAMPLE:,} users, {train.shape[1]:,} items")
    for name, weights in ((f"{LINKS}, float32", whole), *((f"{n}, int8", few(whole, n)) for n in (LINKS, *CUT))):
        found = judge(lambda mine, weights=weights: (mine @ weights).toarray(), train, held, users)
        table.add_row(name, *(f"{x:.4f}" for x in found))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1_682, 6_000, 20_000, 60_000, 100_000])
    parser.add_argument("--most-mb", type=float, default=MOST_MB)
    parser.add_argument("--gowalla", type=Path)
    given, console = parser.parse_args(), Console(width=140)
    if given.gowalla:
        console.print(cutting(given.gowalla))
        return
    table = Table("items", "MB", "vectors", "links", "loads s", "p50 ms", "p99 ms", "the cascade's")
    with threadpool_limits(1):
        for items in given.items:
            table.add_row(*measure(items, given.most_mb))
    console.print(table)


if __name__ == "__main__":
    main()

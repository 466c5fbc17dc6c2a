"""What an event costs the folds alone: `python -m benchmarks.engine.folds --users 1000000 --events 200000`.

No Kafka: records in memory through both folds, as the worker's stages would hand them over, with a row for every key
beforehand (as in `benchmarks.engine.own`). CPU an event of each part of a commit: of all commits but those of the
first quarter the median, and what a fifth of them stays below, which other work on the machine disturbs less.
"""

import argparse
import gc
import random
from time import process_time

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.engine.own import NOW_US, STEP_US, event, rows, zipf
from feature_repo.features import item, user
from streams.engine.batches import packed
from streams.engine.stage import CHUNK
from streams.events import encode
from streams.fold.items import ItemFold
from streams.fold.records import Record
from streams.fold.states import Fold
from streams.fold.users import UserFold
from streams.profiles import Profile

COMMIT = 2_500
"""Events of a commit; the items commit with every tenth of them."""
PARTS = ("users' fold", "its snapshot", "its batches", "items' fold")
FROM = 0.25


def filled(fold: Fold, profile: Profile, count: int, past: int, items: int, chance: random.Random) -> None:
    """Put a row for each key into memory, in no order."""
    made, order = rows(profile, past, items, chance), list(range(count))
    chance.shuffle(order)
    for n in order:
        fold.rows.set(f"{profile.name[0]}{n}".encode(), made[n % len(made)])
    fold.rows.take()


def measured(users: int, items: int, events: int, past: int) -> np.ndarray:
    """(commits, parts), in us of CPU an event."""
    chance = random.Random(1)
    first, second = UserFold(0, 1 << 18, 1_000_000_000, partitions=1), ItemFold(0)
    filled(first, user, users, past, items, chance)
    filled(second, item, items, past, items, chance)
    who, what = zipf(users, 0.85, chance), zipf(items, 0.9, chance)
    backlog: list[Record] = []
    for n in range(events):
        one = event(n, f"u{next(who)}", f"i{next(what)}", NOW_US + n * STEP_US, chance)
        backlog.append((n, one.user_id.encode(), encode(one)))
    gc.collect()
    gc.freeze()
    spent, handed = [], 0
    for turn, start in enumerate(range(0, events, COMMIT)):
        commit = backlog[start : start + COMMIT]
        times = [process_time()]
        for at in range(0, len(commit), CHUNK):
            first.fold(commit[at : at + CHUNK])
        times.append(process_time())
        snapshot = first.snapshot()
        times.append(process_time())
        packed(snapshot.records, snapshot.rows)
        times.append(process_time())
        second.fold([(handed + n, None, delta) for n, (_, delta) in enumerate(snapshot.deltas)])
        handed += len(snapshot.deltas)
        if turn % 10 == 9:
            second.snapshot()
        times.append(process_time())
        spent.append(np.diff(times) / len(commit) * 1e6)
    return np.array(spent[int(len(spent) * FROM) :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--past", type=int, default=30, help="events that each row is made of")
    asked = parser.parse_args()
    table = Table(title="us CPU an event, median (a fifth below)")
    for name in ("users", *PARTS, "all"):
        table.add_column(name, justify="right")
    for users in asked.users:
        spent = measured(users, asked.items, asked.events, asked.past)
        with_sum = np.column_stack([spent, spent.sum(1)])
        cells = [f"{np.median(part):.2f} ({np.quantile(part, 0.2):.2f})" for part in with_sum.T]
        table.add_row(f"{users:,}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()

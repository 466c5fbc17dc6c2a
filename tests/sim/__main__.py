"""`python -m tests.sim --schedules N --seed S [--processes P]`: explore.

Exit code 1, and the shortest schedule that fails, when something was wrong.
"""

import argparse
import sys
import time
from collections import Counter
from multiprocessing import Pool

from tests.sim.shrink import shortest
from tests.sim.world import Schedule, models_in, run

Share = tuple[int, int]


def _explore(seeds: Share) -> tuple[list[int], set[int], Counter[str]]:
    failed, shapes, faults = [], set(), Counter[str]()
    with models_in():
        for seed in range(*seeds):
            outcome = run(Schedule.drawn(seed))
            shapes.add(outcome.shape)
            faults += outcome.faults
            if outcome.wrong:
                failed.append(seed)
    return failed, shapes, faults


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; the others follow it")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    size, end = 500, asked.seed + asked.schedules
    shares = [(at, min(at + size, end)) for at in range(asked.seed, end, size)]
    started = time.monotonic()
    with Pool(asked.processes) as pool:
        parts = pool.map(_explore, shares, chunksize=1)
    minutes = (time.monotonic() - started) / 60
    failed = sorted(seed for part in parts for seed in part[0])
    shapes = set[int]().union(*(part[1] for part in parts))
    faults = sum((part[2] for part in parts), Counter[str]())
    print(f"{asked.schedules:,} schedules, {asked.schedules / minutes:,.0f} a minute, {len(failed)} wrong")
    print(f"{len(shapes):,} distinct histories (orders of faults, assignments, commits and aborts)")
    print("faults: " + ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items())))
    if failed:
        print(f"\nseeds {failed[:20]}; the first, shortened:")
        with models_in():
            print(shortest(Schedule.drawn(failed[0])))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

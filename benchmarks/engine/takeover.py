"""How long a worker's partitions stand still when it dies for good: `python -m benchmarks.engine.takeover`.

Two workers share the changelogs of `--users` users and 60,000 items, with rows as in `benchmarks.engine.own`. One gets
a SIGKILL and is not started again; then an event comes for each of a thousand users. Seconds are from the kill until
the other worker has applied all of them in the users' stage, and in the items', which gets them up to a second later;
6 of them are the session's timeout. Once with nothing and once with a warm standby (`FRESHET_STANDBY`) that is up to
date.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine.own import LIMIT_S, applied, backlog, fill, metrics
from freshet.prove.rig import Plan, Rig
from freshet.settings import get_settings
from streams.topics import EVENTS, ITEM_DELTAS

ITEMS, EVENTS_AFTER = 60_000, 1_000
LOOK_S = 0.05


def until_shared(ports: list[int], states: int) -> None:
    """Wait until every worker has some of the states, and together they have all."""
    give_up = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up:
        held = [sum(n for name, n in metrics(p).items() if name.startswith("freshet_states{")) for p in ports]
        if all(held) and sum(held) == states:
            return
        time.sleep(LOOK_S)
    raise SystemExit("the workers did not share the partitions")


def until_followed(port: int) -> None:
    """Wait until a worker's standby has all that others committed."""
    give_up = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up:
        lags = [lag for name, lag in metrics(port).items() if name.startswith("freshet_standby_lag_records")]
        if lags and not any(lags):
            return
        time.sleep(LOOK_S)
    raise SystemExit("the standby did not catch up")


def measure(users: int, standby: bool) -> tuple[float, float, float, float]:
    """Seconds until the users' stage has all, and until both have; seconds of the restore in it; records it read."""
    with (
        tempfile.TemporaryDirectory(prefix="freshet-engine-") as folder,
        Rig(Path(folder) / "rig", get_settings().cache_dir, Plan(workers=0, online_sinks=0, heap_mb=768)) as rig,
    ):
        rig.supervisor.remove("archive")
        fill(rig.settings, users, ITEMS, past=30)
        ports = []
        for n in range(2):
            ports.append(rig.metrics_port + 9 + n)
            env = rig.settings.as_env() | {
                "FRESHET_WORKER_METRICS_PORT": str(ports[n]),
                "FRESHET_INSTANCE": f"worker{n}",
                "FRESHET_STANDBY": str(standby),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info", "--without-web"]
            rig.supervisor.add(f"worker{n}", command, env, rig.logs / f"worker{n}.log")
            until_shared(ports, users + ITEMS)  # one after the other: the second has never had what it takes over
        if standby:
            until_followed(ports[1])
        with rig.supervisor.held_down("worker0"):
            killed, moved = time.monotonic(), 0.0
            backlog(rig.settings, EVENTS_AFTER, users, ITEMS)
            while True:
                found = metrics(ports[1])
                if not moved and applied(found, EVENTS) == EVENTS_AFTER:
                    moved = time.monotonic() - killed
                if applied(found, EVENTS) == applied(found, ITEM_DELTAS) == EVENTS_AFTER:
                    break
                if time.monotonic() - killed > LIMIT_S:
                    raise SystemExit("the other worker did not take over")
                time.sleep(LOOK_S)
            seconds = time.monotonic() - killed
        return (
            moved,
            seconds,
            max(value for name, value in found.items() if name.startswith("freshet_restore_seconds")),
            sum(value for name, value in found.items() if name.startswith("freshet_restored_records")),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000, help="(default: %(default)s)")
    given = parser.parse_args()
    table = Table("", "s without, users", "and items", "s of restoring in it", "records read")
    for standby in (False, True):
        *seconds, records = measure(given.users, standby)
        table.add_row("warm standby" if standby else "nothing kept", *(f"{s:.1f}" for s in seconds), f"{records:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""The line on Flink beside the line's own worker: `python -m benchmarks.engine.flink --events 500000`.

Both fold the same backlog with every feature of `feature_repo/features.py`, both stages, exactly once, from empty
states (the events of `benchmarks.engine.own`: Zipf users and items). CPU is that of the whole process tree, user and
system: from a quarter of the events to the end, and beside it all of it, start included. The worker commits every 150
ms, Flink at each checkpoint. The broker runs on the same machine, the sinks do not run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine.own import backlog
from benchmarks.engine.peers import Peer, drain
from freshet.prove.rig import Plan, Rig
from freshet.settings import get_settings
from freshet.stack import flink, watch


def measure(engine: str, events: int, users: int, items: int, subtasks: int) -> list[str]:
    """A row of the table."""
    plan = Plan(workers=subtasks, online_sinks=0, heap_mb=768, flink=engine == "flink")
    with (
        tempfile.TemporaryDirectory(prefix="freshet-flink-") as name,
        Rig(Path(name) / "rig", get_settings().cache_dir, plan) as rig,
    ):
        rig.supervisor.remove("archive")
        backlog(rig.settings, events, users, items)
        if engine == "flink":
            command, env = flink.command(rig.settings)
        else:
            command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "warn", "--without-web"]
            env = {
                **rig.settings.as_env(),
                "FRESHET_INSTANCE": "worker0",
                "FRESHET_WORKER_METRICS_PORT": str(rig.metrics_port),
            }
        env |= {watch.MARK: rig.supervisor.mark}
        peer = Peer(engine, rig.settings.app_id, "", command, env, lambda key, value: iter(()))
        slope, all_in, per_s, peak = drain(peer, rig, events, None, rig.logs / f"{engine}.log")
    return [engine, f"{subtasks}", f"{slope:.1f}", f"{all_in:.1f}", f"{per_s:,.0f}", f"{peak:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--engine", nargs="+", choices=("worker", "flink"), default=["worker", "flink"])
    parser.add_argument("--subtasks", type=int, default=1, help="of each of Flink's steps (default: %(default)s)")
    given = parser.parse_args()
    table = Table("engine", "subtasks", "us CPU an event", "all in", "events/s", "peak MB")
    for engine in given.engine:
        subtasks = given.subtasks if engine == "flink" else 1
        table.add_row(*measure(engine, given.events, given.users, given.items, subtasks))
    Console().print(table)


if __name__ == "__main__":
    main()

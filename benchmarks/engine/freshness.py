"""From an event's acknowledgement to its feature in Redis: `python -m benchmarks.engine.freshness --rate 20000 1000`.

A line of its own (broker, Redis, one worker, one online sink) under a steady load that librdkafka sends; beside it
one event at a time of the probe's own users, sent and acknowledged apart, then read from Redis every few
milliseconds until the user's version has risen. Beside it, what part of a core each program took meanwhile ("load" is
this process: the events and the probes).
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from pathlib import Path

import psutil
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from feature_repo.online import OnlineUsers
from freshet.prove.rig import Plan, Rig
from freshet.prove.workload import START_US, Shape, Workload, records
from freshet.settings import Settings, get_settings
from monitoring.probes import Quantiles
from streams.profiles import header
from streams.topics import EVENTS

PROBES, WARM_S, POLL_S, PATIENCE_S = 200, 15.0, 0.002, 30.0
"""Warm: the worker must have caught up with what came while it started."""


async def probe(settings: Settings, workload: Workload, probes: int) -> list[float]:
    """Seconds from acknowledgement to readable, one a probe."""
    online, took, draw = OnlineUsers(settings), [], random.Random(1)

    async def version(user: str) -> int:
        try:
            row = await online.get(user)
        except RedisError:  # its patience is that of an answer, a few milliseconds
            return -1
        head = None if row is None else header(row)
        return -1 if head is None else head.version

    for n in range(probes):
        user, at = f"probe-{n % 10}", START_US + n
        old = await version(user)
        event = {
            "event_id": f"probe-{n}",
            "user_id": user,
            "item_id": "i1",
            "type": "click",
            "event_time": at,
            "arrival": at,
        }
        await asyncio.to_thread(workload.send_one, user.encode(), json.dumps(event).encode())
        start = time.monotonic()
        while await version(user) <= old:
            if time.monotonic() - start > PATIENCE_S:
                raise SystemExit(f"the event of {user} did not reach Redis in {PATIENCE_S:.0f} s")
            await asyncio.sleep(POLL_S)
        took.append(time.monotonic() - start)
        await asyncio.sleep(draw.uniform(0, 0.1))  # else probes would fall into step with the commits
    await online.close()
    return took


def cpu(rig: Rig) -> dict[str, float]:
    """Seconds of CPU that each program has used, with its children that have ended (Redis rewrites its log in one)."""
    pids = {name: process.pid for name, process in rig.supervisor.processes.items()} | {"load": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items() if pid is not None}
    own = {name: t.user + t.system for name, t in times.items()}
    ended = {name: t.children_user + t.children_system for name, t in times.items() if name != "load"}
    return {name: used + ended.get(name, 0.0) for name, used in own.items()}


def measure(rate: int, users: int, probes: int) -> tuple[Quantiles, float, dict[str, float]]:
    """The quantiles in milliseconds, the events a second that were really sent, and each program's part of a core."""
    with (
        tempfile.TemporaryDirectory(prefix="freshet-freshness-") as folder,
        Rig(Path(folder) / "rig", get_settings().cache_dir, Plan(workers=1)) as rig,
    ):
        rig.supervisor.remove("archive")
        rig.start_workers()
        count = 10 * 60 * rate
        pairs = records(count, 1, Shape(users=users, items=users // 10, retries=0.0, poison=0.0))
        rig.workload = Workload(rig.settings.kafka, rig.settings.topic(EVENTS), pairs, count, rate)
        rig.workload.start()
        rig.workload.allow(count)
        time.sleep(WARM_S)
        begun, before, used = time.monotonic(), rig.workload.acknowledged, cpu(rig)
        took = asyncio.run(probe(rig.settings, rig.workload, probes))
        seconds = time.monotonic() - begun
        sent = (rig.workload.acknowledged - before) / seconds
        cores = {name: (now - used[name]) / seconds for name, now in cpu(rig).items()}
        rig.workload.stop()
        return Quantiles.of(took), sent, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=int, nargs="+", default=[1_000, 20_000], help="events a second (default: %(default)s)"
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--probes", type=int, default=PROBES)
    given = parser.parse_args()
    table = Table("asked events/s", "sent events/s", "p50 ms", "p99 ms", "cores")
    for rate in given.rate:
        found, sent, cores = measure(rate, given.users, given.probes)
        used = ", ".join(f"{name} {part:.2f}" for name, part in cores.items())
        table.add_row(f"{rate:,}", f"{sent:,.0f}", f"{found.p50:.0f}", f"{found.p99:.0f}", used)
    Console().print(table)


if __name__ == "__main__":
    main()

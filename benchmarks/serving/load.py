"""Serving under load: `python -m benchmarks.serving.load --shape steady --seconds 60 --html steady.html`.

A Kafka, a Redis and a service of its own, with a catalogue of `--items` made-up items, `--users` users in the online
store who liked 50 each, and a bundle with parameters of no meaning and of the usual sizes
(`benchmarks.serving.catalogue`). Locust asks `/recommend` for 20 items from a process of its own over `--connections`
connections, without a pause (or `--per-s` questions a second over all of them, as far as they are answered in time).
No line runs beside it.

Shapes: `steady` and `soak` hold the connections, `ramp` raises them by quarters, `spike` has four times as many for a
fifth of the time. With `--swap-s` a new bundle becomes champion every so many seconds. Answers with 429 are a row of
their own. Memory is that of all the service's processes before and after (PSS), and a line for each serving process:
what it alone has (USS) at the start, each minute and at the end; what it shares, code above all, counts as much as
others leave of it.
"""

import argparse
import asyncio
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx
import numpy as np
import psutil
from pydantic import SecretStr
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.engine.own import rows
from benchmarks.serving import catalogue as made
from bentos import bundle
from feature_repo.features import item, user
from feature_repo.layout import entity_key, pack_bytes, state_field
from freshet.prove.rig import Plan, Rig
from freshet.settings import Settings, get_settings
from streams.catalogue import Item, send_items
from streams.events import Event, now
from streams.publisher import Publisher
from streams.topics import ITEM_FEATURES
from training.registry import track

START_S = 300.0
"""A process reads a million items in one and a half minutes."""
WHOLE = 20
"""Whole answers in a row, each over its own connection, before the load begins: of one process, and of all."""
HISTORIES = 1_000
"""Different histories; users are more."""


async def fill_items(settings: Settings, items: int) -> None:
    states = rows(item, 30, items, random.Random(1))
    async with Publisher(settings) as publisher:
        described = (Item(f"i{n}", f"Item {n}", (f"category-{n % made.CATEGORIES:02}",)) for n in range(items))
        await send_items(publisher, described)
        for start in range(0, items, 1_000):
            some = range(start, min(start + 1_000, items))
            await publisher.send(ITEM_FEATURES, [(f"i{n}".encode(), states[n % len(states)]) for n in some])


def fill_users(settings: Settings, users: int, items: int) -> None:
    chance, at, states = random.Random(2), now(), []
    for n in range(HISTORIES):
        some = []
        for k in range(made.LIKED):
            i, when = chance.randrange(items), at - (made.LIKED - k) * 3_600_000_000
            some.append(
                Event(f"e{k}", f"u{n}", f"i{i}", "click", when, when, None, (f"category-{i % made.CATEGORIES:02}",))
            )
        states.append(pack_bytes(user.advance(None, some, n)))
    with Redis.from_url(settings.redis_url) as client, client.pipeline(transaction=False) as pipe:
        for n in range(users):
            pipe.hset(entity_key(user.key, f"u{n}"), state_field(user.name), states[n % HISTORIES])
            if n % 1_000 == 999:
                pipe.execute()
        pipe.execute()


def register(settings: Settings, items: int, folder: Path) -> None:
    rng = np.random.default_rng(7)
    bundle.save(folder, made.cascade(made.matrix(items, rng), rng), settings.signing_key())
    track(settings, folder, {}, {}, "", [])


def until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds from now until it is ready and answers with its bundle. Returns when all its processes seem to."""
    start, first, whole = time.monotonic(), 0.0, 0
    while time.monotonic() - start < START_S:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/readyz", timeout=1).status_code == 200:
                answer = httpx.post(f"{url}/recommend", json={"user_id": "u1", "k": 20}, timeout=10).json()
                whole = whole + 1 if answer["bundle"] and not answer["fallback"] else 0
                first = first or (time.monotonic() - start if whole else 0.0)
                if whole == WHOLE:
                    return first
        except httpx.HTTPError:
            pass
        time.sleep(0.01 if whole else 0.1)
    raise SystemExit(f"the service is not ready: {log.read_text(errors='replace')[-3000:]}")


def resident(process: psutil.Process) -> float:
    """MB of the service's processes, shared pages once (PSS)."""
    return sum(p.memory_full_info().pss for p in (process, *process.children(recursive=True))) / 1e6


def alone(process: psutil.Process) -> list[float]:
    """MB that each serving process alone has (USS)."""
    return [p.memory_full_info().uss / 1e6 for p in process.children()]


def measure(given: argparse.Namespace, folder: Path) -> tuple[dict[str, float], list[list[float]]]:
    """Figures of the load, and `alone` at the start, each minute and at the end."""
    plan = Plan(workers=0, online_sinks=0, heap_mb=512)
    with Rig(folder / "rig", get_settings().cache_dir, plan) as rig:
        rig.supervisor.remove("archive")
        port = rig.metrics_port + 11
        settings = Settings(
            **{
                **rig.settings.model_dump(),
                "serve_port": port,
                "serve_url": f"http://127.0.0.1:{port}",
                "serve_workers": given.workers,
                "cache_ttl_s": given.cache_ttl_s,
                "bundle_key": SecretStr(uuid.uuid4().hex),
            }
        )
        asyncio.run(fill_items(settings, given.items))
        fill_users(settings, given.users, given.items)
        register(settings, given.items, folder / "bundle")
        env = {**os.environ, **settings.as_env(), "BENTOML_HOME": str(folder / "bentoml"), "OMP_NUM_THREADS": "1"}
        env["OPENBLAS_NUM_THREADS"] = "1"
        tool = Path(sys.executable).parent
        log = folder / "serve.log"
        with log.open("wb") as out:
            command = [tool / "bentoml", "serve", "bentos.service:Recommender", "--port", str(port)]
            service = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            ready_s = until_ready(settings.serve_url, service, log)
            watched = psutil.Process(service.pid)
            before, each = resident(watched), [alone(watched)]
            load = {
                "LOAD_USERS": str(given.users), "LOAD_SHAPE": given.shape, "LOAD_SECONDS": str(given.seconds),
                "LOAD_CONNECTIONS": str(given.connections), "LOAD_PER_S": str(given.per_s),
            }  # fmt: skip
            asking = subprocess.Popen(
                [
                    tool / "locust", "-f", Path(__file__).with_name("locustfile.py"), "--headless", "--only-summary",
                    "--host", settings.serve_url, "--html", given.html, "--csv", folder / "load", "--loglevel", "ERROR",
                ],
                env={**os.environ, **load}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            begun = swapped = time.monotonic()
            swaps = 0
            while asking.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - begun > 60 * len(each):
                    each.append(alone(watched))
                if given.swap_s and time.monotonic() - swapped > given.swap_s:
                    register(settings, given.items, folder / f"bundle-{swaps}")
                    swaps, swapped = swaps + 1, time.monotonic()
            after = resident(watched)
            each.append(alone(watched))
        finally:
            service.terminate()
            service.wait(30)
        with (folder / "load_stats.csv").open() as stats:
            by_name = {row["Name"]: row for row in csv.DictReader(stats)}
    mine, refused = by_name["/recommend"], by_name.get("/recommend (429)")
    figures = {
        "ready_s": ready_s,
        "answers": int(mine["Request Count"]),
        "errors": int(mine["Failure Count"]),
        "swaps": swaps,
        "refused": 0 if refused is None else int(refused["Request Count"]),
        "per_s": float(mine["Requests/s"]),
        "p50_ms": float(mine["50%"]),
        "p99_ms": float(mine["99%"]),
        "worst_ms": float(mine["Max Response Time"]),
        "before_mb": before,
        "after_mb": after,
    }
    return figures, each


def main() -> int:
    """Returns the exit code: 1 when an answer was an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--per-s", type=float, default=0.0, help="questions a second; 0: without a pause")
    parser.add_argument("--cache-ttl-s", type=float, default=0.0)
    parser.add_argument("--swap-s", type=float, default=0.0, help="register a new bundle so often; 0: never")
    parser.add_argument("--shape", choices=["steady", "ramp", "spike", "soak"], default="steady")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--html", type=Path, default=Path("load.html"), help="locust's report")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freshet-load-") as folder:
        found, each = measure(given, Path(folder))
    table = Table(
        title=f"{given.shape}, {given.items:,} items, {given.connections} connections, {given.workers} workers"
    )
    for name in found:
        table.add_column(name)
    table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in found.values()))
    Console().print(table)
    for n, of_one in enumerate(zip(*each, strict=True), 1):
        print(f"process {n}, MB each minute:", *(f"{mb:.0f}" for mb in of_one))
    if given.json:
        given.json.write_text(json.dumps({**found, "each_minute_mb": each}, indent=1))
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())

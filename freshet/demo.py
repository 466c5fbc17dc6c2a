"""The demo: one run of the whole line on a planted shop. With `once` every claim is measured and checked.

Each step is a command that a user has too; what they measure is left to the rooms that they live in.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import webbrowser
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from freshet.cli.progress import bars
from freshet.settings import Settings, get_settings

EVENTS, USERS, ITEMS, SEED = 200_000, 2_000, 1_000, 1
LOOP_REQUESTS, AT_ONCE, LATENCY_REQUESTS, PROBES, RATE = 2_400, 48, 2_000, 60, 1_000
SHIFT_RATE, SHIFT_S = 9_000.0, 10.0
"""Monthly means move once a good part of the month is of the new kind."""
QUESTIONS = 200
LEAST_LIFT = 0.30
BUNDLE_S = 60.0
"""Serving looks for a new champion every two seconds."""

console = Console()


@dataclass
class Findings:
    """What was measured, and which claims held."""

    rows: list[tuple[str, str, float, bool | None]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    noted: float = 0.0

    def note(self, name: str, text: str, held: bool | None = None) -> None:
        """One line of the table, with the seconds since the line before. `held` is None where nothing was promised."""
        took = self.seconds - self.noted
        self.noted += took
        self.rows.append((name, text, took, held))
        self.figures[name] = {"text": text, "held": held, "seconds": round(took, 1)}
        mark = "" if held is None else "[green]held[/] " if held else "[red]FAILED[/] "
        console.print(f"  {mark}{name}: {text}")

    @property
    def ok(self) -> bool:
        return all(held is not False for _, _, _, held in self.rows)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def table(self) -> Table:
        """All of it."""
        table = Table("what", "measured", "s", "check", title="What the demo measured", title_justify="left")
        for name, text, took, held in self.rows:
            table.add_row(name, text, f"{took:.0f}", "" if held is None else "held" if held else "FAILED")
        return table


def main(once: bool) -> int:
    """Run the demo; the exit code. Everything of `once` lies in a folder of its own, emptied first."""
    found = Findings()
    home = get_settings().home
    if once:
        here = home / "once"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        os.environ["FRESHET_HOME"] = str(here)
    _say("starting Kafka, Redis, the worker, the sinks, ingest and serving")
    started = _freshet("up", "--detach")
    if started.returncode:
        return started.returncode
    get_settings.cache_clear()
    settings = get_settings()
    found.note("start", "all parts are well")
    if not once:
        _learn(settings, found)
        return _leave_open(settings)
    try:
        _learn(settings, found)
        _measure(settings, found)
    finally:
        stopped = _freshet("down")
    found.note("stop", "everything stopped", stopped.returncode == 0)
    console.print(found.table())
    result = home / "demo.json"
    result.write_text(json.dumps({"ok": found.ok, "seconds": found.seconds, "findings": found.figures}, indent=1))
    verdict = "every check held" if found.ok else "a check failed"
    console.print(f"{verdict}, in {found.seconds:.0f} s; written to {result}")
    return 0 if found.ok else 1


def _say(text: str) -> None:
    console.print(f"[bold]{text}[/]")


def _freshet(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-m", "freshet", *arguments], check=False)


def _learn(settings: Settings, found: Findings) -> None:
    """Plant a history, fold it, train on it, wait until serving has the bundle."""
    from monitoring import quiet
    from streams.backfill import backfill
    from streams.simulate import run

    if asyncio.run(_line(settings)).get("bundle"):
        found.note("model", "a bundle serves already; nothing is planted")
        return
    _say(f"planting {EVENTS:,} events of {USERS:,} users and {ITEMS:,} items")
    with bars() as progress:
        sent = run(settings, events=EVENTS, users=USERS, items=ITEMS, seed=SEED, progress=progress)
        start = time.monotonic()
        quiet.wait(settings, 120, progress)
        folded = time.monotonic() - start
    found.note(
        "events", f"{sent.records:,} sent in {sent.seconds:.1f} s, folded {folded:.1f} s later", sent.records >= EVENTS
    )
    _say("folding the archive into the offline store")
    with bars() as progress:
        filled = backfill(settings, progress=progress)
    found.note("backfill", f"{filled.user_rows:,} user rows, {filled.item_rows:,} item rows in {filled.seconds:.1f} s")
    _say("training: LightGCN, DIN, RankNet, LambdaRank, and what they have to beat")
    trained = subprocess.run(
        [sys.executable, "-m", "freshet", "train", "--questions", str(QUESTIONS), "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(trained.stdout)
    found.figures["train"] = report
    found.note("training", f"bundle {report['version']} in {sum(report['seconds'].values()):.0f} s")
    _await_bundle(settings, str(report["version"]))


async def _line(settings: Settings) -> dict[str, Any]:
    import httpx

    async with httpx.AsyncClient(timeout=10) as client:
        answer: dict[str, Any] = (await client.get(f"{settings.serve_url}/api/line")).json()
        return answer


def _await_bundle(settings: Settings, version: str) -> None:
    give_up = time.monotonic() + BUNDLE_S
    while asyncio.run(_line(settings)).get("bundle") != version:
        if time.monotonic() > give_up:
            raise RuntimeError(f"serving has not taken up bundle {version}: see {settings.home / 'logs' / 'serve.log'}")
        time.sleep(1)


def _leave_open(settings: Settings) -> int:
    console.print(
        f"\nThe console is at [bold]{settings.serve_url}[/]: choose a user, click an item, watch the list change.\n"
        "Events flow while you look: `freshet simulate --live --rate 100`. Stop everything with `freshet down`."
    )
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(settings.serve_url)
    return 0


def _measure(settings: Settings, found: Findings) -> None:
    from monitoring import drift, probes, skew, verify
    from streams.simulate import closed_loop, live

    users, items = [f"u{n:05d}" for n in range(USERS)], list(_catalogue(settings))
    with bars() as progress:
        _say(
            f"closing the loop: {LOOP_REQUESTS:,} lists, half of them by popularity, simulated users click as they like"
        )
        loop = closed_loop(settings, LOOP_REQUESTS, seed=SEED, concurrency=AT_ONCE, progress=progress)
        lift = loop.lift
        found.note(
            "click-through",
            ", ".join(f"{a.arm} {a.ctr:.4f} (best possible {a.best_ctr:.4f})" for a in loop.arms)
            + (f"; lift {lift.lift:+.0%}, 95% {lift.low:+.0%} to {lift.high:+.0%}" if lift else ""),
            lift is not None and lift.lift >= LEAST_LIFT and lift.low > 0 and loop.errors == 0,
        )
        _say("drift: a quiet stream must not alarm")
        calm = drift.run(settings, progress=progress)
        found.note("drift, quiet", f"{calm.drifted_columns} of {len(calm.columns)} columns drifted", not calm.drifted)
        _say("how fast, and how fresh while 1,000 events a second flow")
        speed = asyncio.run(probes.latency(settings, users, requests=LATENCY_REQUESTS))
        found.note(
            "/recommend",
            f"p50 {speed.answer.p50:.1f} ms, p99 {speed.answer.p99:.1f} ms "
            f"at {speed.connections} connections, {speed.per_s:.0f}/s",
            speed.answer.p50 < 15 and speed.answer.p99 < 40,
        )
        fresh = asyncio.run(probes.freshness(settings, users, items, rate=RATE, probes=PROBES))
        found.note(
            "freshness",
            f"event to Redis p50 {fresh.store.p50:.0f} ms, p99 {fresh.store.p99:.0f} ms; "
            f"to a changed answer p99 {fresh.recommend.p99:.0f} ms, at {fresh.events_per_s:.0f} events/s",
            fresh.store.p50 < 400 and fresh.store.p99 < 1_000 and fresh.recommend.p99 < 1_200,
        )
        _say("the same with tastes and prices that have shifted: drift must be found")
        live(settings, SHIFT_RATE, SHIFT_S, SEED, shift=True, progress=progress)
        shifted = time.monotonic()
        closed_loop(settings, LOOP_REQUESTS // 4, ("champion",), seed=SEED + 1, concurrency=AT_ONCE, progress=progress)
        since = time.monotonic() - shifted  # what was answered before the shift would only thin it out
        moved = drift.run(settings, window_s=since, progress=progress)
        found.note("drift, planted", f"{moved.drifted_columns} of {len(moved.columns)} columns drifted", moved.drifted)
        _say("recomputing every feature from the raw log")
        proof = verify.run(settings, progress=progress)
        found.note(
            "verify", f"{sum(c.compared for c in proof.checks):,} comparisons, {proof.mismatches} mismatches", proof.ok
        )
        served = skew.run(settings, at_least=LOOP_REQUESTS, most=LOOP_REQUESTS, fill=False, progress=progress)
        behind = (
            "" if served.by_time is None else f"; {served.by_time.share:.1%} were asked while an event was on its way"
        )
        found.note(
            "verify --served",
            f"{sum(c.compared for c in served.checks):,} served values, "
            f"{served.mismatches} differ from training's{behind}",
            served.ok,
        )


def _catalogue(settings: Settings) -> dict[str, Any]:
    from streams.catalogue import read_catalogue

    return dict(asyncio.run(read_catalogue(settings)))

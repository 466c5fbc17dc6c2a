"""What a bundle costs as the data grows: `python -m benchmarks.training.growth --events 100000 500000 1000000 5000000`.

For each size a broker of its own, a simulated world (a user for every hundred events, 5,000 items, 30 days), then the
commands that anybody would run: `freshet backfill` and `freshet train --no-register`. Seconds are wall time; memory is
the peak of the whole process tree, resident, seen four times a second. `--labels` has `freshet
training-set` join so many labels at the last size, too: all columns of users and items just before as many events.
`--json` keeps the figures of earlier sizes that are in the file; `--plot` draws all that are there.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psutil
from rich.console import Console
from rich.table import Table

from feature_repo import offline
from feature_repo.apply import feast
from feature_repo.features import item, user
from freshet.prove.rig import Plan, Rig
from freshet.settings import Settings, get_settings
from streams.aggregates import DAY
from streams.replay.player import play
from streams.simulate.history import History
from streams.simulate.world import World, WorldSpec

ITEMS, DAYS, EVENTS_A_USER = 5_000, 30, 100
LOOK_S = 0.25


class Cost(NamedTuple):
    """Of one command."""

    seconds: float
    peak_mb: float
    out: str


def run(arguments: list[str], env: dict[str, str]) -> Cost:
    """Run one command to its end. Leaves the program when it fails."""
    begun, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = psutil.Popen([sys.executable, *arguments], env=os.environ | env, stdout=out, stderr=err)
        while process.poll() is None:
            peak = max(peak, _resident(process))
            time.sleep(LOOK_S)
        out.seek(0), err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed: {err.read()[-3000:]}{out.read()[-2000:]}")
        return Cost(time.monotonic() - begun, peak / 1e6, out.read())


def _resident(process: psutil.Popen) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        pass
    return total


def measure(events: int, labels: int) -> dict[str, Any]:
    """Plant, backfill and train once."""
    now = time.time_ns() // 1_000
    spec = WorldSpec(7, max(50, events // EVENTS_A_USER), ITEMS, now - DAYS * DAY, now)
    with (
        tempfile.TemporaryDirectory(prefix="freshet-growth-") as folder,
        Rig(Path(folder) / "rig", get_settings().cache_dir, Plan(workers=0, online_sinks=0)) as rig,
    ):
        feast(rig.settings, "apply")
        sent = asyncio.run(play(rig.settings, History(World(spec), events)))
        env = rig.settings.as_env() | {"FRESHET_BUNDLE_KEY": "benchmark" * 4}
        backfill = run(["-m", "freshet", "backfill"], env)
        train = run(["-m", "freshet", "train", "--no-register", "--json"], env)
        report = json.loads(train.out)
        figures = {
            "events": events,
            "sent_s": sent.seconds,
            "backfill_s": backfill.seconds,
            "backfill_mb": backfill.peak_mb,
            "train_s": train.seconds,
            "train_mb": train.peak_mb,
            "liked": report["liked"],
            "steps": report["seconds"],
        }
        if labels:
            draw(rig.settings, labels, Path(folder) / "labels.parquet")
            joined = run(["-m", "freshet", "training-set", f"{folder}/labels.parquet", "--out", f"{folder}/set"], env)
            figures |= {"labels_s": joined.seconds, "labels_mb": joined.peak_mb}
        return figures


def plot(figures: list[dict[str, Any]], out: Path) -> None:
    """Seconds and memory over events, both axes logarithmic, beside a line that grows as the events do."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    events = [f["events"] for f in figures]
    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, what, unit in zip(drawing.subplots(1, 2), ("s", "mb"), ("seconds", "peak memory, MB"), strict=True):
        for command in ("backfill", "train"):
            axes.loglog(events, [f[f"{command}_{what}"] for f in figures], "o-", label=f"freshet {command}")
        first = figures[0][f"train_{what}"]
        axes.loglog(events, [first * n / events[0] for n in events], ":", color="grey", label="in proportion")
        axes.set_xlabel("events")
        axes.set_ylabel(unit)
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    with rc_context({"svg.fonttype": "none"}):  # words as words, a third of the size
        drawing.savefig(out)


def draw(settings: Settings, labels: int, out: Path) -> None:
    """So many labels: the users and instants of events, just before them, each with any item."""
    with duckdb.connect() as db:
        users, items = (offline.pattern(settings, profile) for profile in (user, item))
        db.execute(
            f"""COPY (
                WITH ids AS (
                    SELECT item_id, row_number() OVER () - 1 AS n FROM (SELECT DISTINCT item_id FROM '{items}')),
                picked AS (
                    SELECT user_id, event_timestamp - INTERVAL 1 MICROSECOND AS event_timestamp,
                        hash(event_timestamp) % (SELECT count(*) FROM ids) AS n
                    FROM '{users}' ORDER BY hash(user_id, event_timestamp) LIMIT {labels})
                SELECT user_id, item_id, event_timestamp FROM picked JOIN ids USING (n)
            ) TO '{out}' (FORMAT parquet)"""
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 500_000, 1_000_000, 5_000_000])
    parser.add_argument("--labels", type=int, default=0, help="rows of a training set at the last size")
    parser.add_argument("--json", type=Path, help="keep the figures there, with those of earlier runs")
    parser.add_argument("--plot", type=Path, help="draw them there, e.g. growth.svg")
    given = parser.parse_args()
    table = Table("events", "liked", "backfill s", "its peak MB", "train s", "its peak MB")
    known = json.loads(given.json.read_text()) if given.json and given.json.exists() else []
    figures = {one["events"]: one for one in known}
    for events in given.events:
        figures[events] = measure(events, given.labels if events == given.events[-1] else 0)
        if given.json:
            given.json.write_text(json.dumps(sorted(figures.values(), key=lambda one: one["events"]), indent=1))
    for events, one in sorted(figures.items()):
        table.add_row(
            f"{events:,}", f"{one['liked']:,}", f"{one['backfill_s']:.0f}", f"{one['backfill_mb']:,.0f}",
            f"{one['train_s']:.0f}", f"{one['train_mb']:,.0f}",
        )  # fmt: skip
    Console().print(table)
    if given.labels:
        last = figures[given.events[-1]]
        print(f"{given.labels:,} labels: {last['labels_s']:.0f} s, {last['labels_mb']:,.0f} MB")
    if given.plot:
        plot(sorted(figures.values(), key=lambda one: one["events"]), given.plot)


if __name__ == "__main__":
    main()

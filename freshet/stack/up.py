"""The life of a stack: up in the foreground or the background, down, and what runs now.

The commands of `freshet.cli` call these.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import psutil

from freshet.settings import Settings
from freshet.stack import home, plan, watch
from freshet.stack.board import board
from freshet.stack.parts import WELL, Condition, Health, Part
from freshet.stack.ports import Claims
from freshet.stack.supervisor import Supervisor

DOWN_S = 12.0
"""A stack stops within 10 s; the rest is for a busy machine."""
SUPERVISOR_LOG = "supervisor.log"

Records = list[dict[str, Any]]


class NotWell(RuntimeError):
    """The stack did not come up as asked. The text says which part and what it last wrote."""


def foreground(settings: Settings, only: Collection[str] = ()) -> None:
    """Run the stack until Ctrl-C or SIGTERM. Raises `AlreadyRuns`, `SettingsError`."""
    names = plan.chosen(only)
    with home.held(settings.home):
        _clear_leftovers(settings.home)
        home.ensure_key(settings.home)
        with Claims(settings.cache_dir / "ports") as claims:
            placed = plan.place(settings, names, claims)
            home.write_env(placed)
            asyncio.run(_supervise(placed, plan.parts(placed, names)))


async def _supervise(settings: Settings, parts: list[Part]) -> None:
    mark = f"{settings.home.name}-{uuid.uuid4().hex}"
    watchman = watch.start(mark)
    record = {"stack": mark, "pid": os.getpid(), "started": time.time(), "home": str(settings.home), "parts": []}

    def changed(condition: Condition) -> None:
        home.write_record(settings.home, record | {"parts": [each.record() for each in supervisor.conditions.values()]})
        shown.changed(condition)

    env = {**settings.as_env(), **plan.QUIET, "PYTHONUNBUFFERED": "1"}
    supervisor = Supervisor(parts, mark, env, changed)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    shown = board(supervisor.conditions)
    ticking = asyncio.create_task(_tick(shown.tick))
    try:
        await supervisor.run()
    finally:
        ticking.cancel()
        shown.close()
        await asyncio.to_thread(watch.sweep, mark, 0.5)
        watch.dismiss(watchman)
        home.drop_record(settings.home)


async def _tick(tick: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        tick()


def _clear_leftovers(folder: Path) -> None:
    """End what a stack left that was killed together with its watchman."""
    record = home.read_record(folder)
    if record:
        watch.sweep(record["stack"])
        home.drop_record(folder)


def detached(
    settings: Settings,
    only: Collection[str] = (),
    wait_s: float = 180.0,
    progress: Callable[[Records], None] = lambda records: None,
) -> Records:
    """Run the stack in the background and return when all of it is well.

    `progress` sees the records of the parts while they start. Raises `AlreadyRuns`, `SettingsError`, and `NotWell`
    after `wait_s` or when the supervisor gives up; what did start then goes on running.
    """
    names = plan.chosen(only)
    if home.is_held(settings.home):
        raise home.AlreadyRuns(f"a stack already runs in {settings.home}")
    log = settings.home / "logs" / SUPERVISOR_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        command = [sys.executable, "-m", "freshet", "up", *(word for name in names for word in ("--only", name))]
        env = os.environ | {"FRESHET_HOME": str(settings.home)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=env
        )
    give_up = time.monotonic() + wait_s
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise NotWell(f"the supervisor ended with exit code {process.returncode}:\n{_tail(log)}")
        record = home.read_record(settings.home)
        records: Records = record["parts"] if record and record["pid"] == process.pid else []
        progress(records)
        if records and all(Health(each["health"]) in WELL for each in records):
            return records
        time.sleep(0.2)
    raise NotWell(_not_well(records, wait_s))


def _not_well(records: Records, wait_s: float) -> str:
    ill = [each for each in records if Health(each["health"]) not in WELL]
    lines = [f"not well after {wait_s:.0f} s (what did start goes on; `freshet down` ends it):"]
    for each in ill:
        lines.append(f"  {each['name']}: {each['health']} {each['message']}")
    asked = [each for each in ill if Health(each["health"]) is not Health.WAITING]
    return "\n".join([*lines, *(f"--- the end of {each['log']}\n{_tail(Path(each['log']))}" for each in asked[:1])])


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def down(folder: Path) -> bool:
    """Stop the stack in `folder`. Returns False when none ran. Also ends what a killed one left behind."""
    record = home.read_record(folder)
    ran = home.is_held(folder)
    if ran and record and psutil.pid_exists(record["pid"]):
        os.kill(record["pid"], signal.SIGTERM)
        give_up = time.monotonic() + DOWN_S
        while home.is_held(folder) and time.monotonic() < give_up:
            time.sleep(0.05)
        if home.is_held(folder):
            os.kill(record["pid"], signal.SIGKILL)
            watch.sweep(record["stack"])
    if record:
        watch.sweep(record["stack"])
        home.drop_record(folder)
    return ran


def status(folder: Path) -> dict[str, Any]:
    """What runs in `folder` now: each part is asked, now, how it does.

    {running, home, pid, parts: [{name, address, pid, health, message, restarts, since, log, memory_mb}]}
    """
    record = home.read_record(folder) if home.is_held(folder) else None
    if not record:
        return {"running": False, "home": str(folder), "pid": None, "parts": []}
    records = record["parts"]
    settings = Settings(home=folder)
    specs = {part.name: part for part in plan.parts(settings, [each["name"] for each in records])}
    asyncio.run(_ask_all(records, specs))
    memory = watch.memory_mb(record["stack"])
    for each in records:
        each["memory_mb"] = memory.get(each["name"])
    return {"running": True, "home": str(folder), "pid": record["pid"], "parts": records}


async def _ask_all(records: Records, specs: dict[str, Part]) -> None:
    async def ask(each: dict[str, Any]) -> None:
        probe = specs[each["name"]].probe
        if probe and Health(each["health"]) in (Health.HEALTHY, Health.UNHEALTHY):
            try:
                await probe()
            except OSError as error:
                each |= {"health": str(Health.UNHEALTHY), "message": f"does not answer: {error}"}
            else:
                each |= {"health": str(Health.HEALTHY), "message": ""}

    await asyncio.gather(*map(ask, records))

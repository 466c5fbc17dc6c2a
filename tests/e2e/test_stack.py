"""The whole stack at once: it comes up, it survives the death of its parts, it stops in time and leaves nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from freshet.stack import plan, watch

START_S = 240.0
"""On an idle machine of two cores it takes about twenty seconds; this bounds a very busy one."""
STOP_S = 10.0
"""A promise: the supervisor kills whatever needs longer, so it holds on a busy machine as well."""

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def test_parts_die_and_come_back_and_all_of_it_stops(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    env["FRESHET_HOME"] = str(home)

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "freshet", *words], env=env, capture_output=True, text=True, check=False
        )

    def parts() -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in json.loads(run("status", "--json").stdout)["parts"]}

    started = run("up", "--detach", "--wait", str(START_S))
    try:
        assert started.returncode == 0, started.stderr
        before = parts()
        assert list(before) == list(plan.PARTS)
        assert {each["health"] for each in before.values()} == {"healthy", "done"}

        struck = ("kafka", "worker", "serve")
        for name in struck:
            os.kill(before[name]["pid"], signal.SIGKILL)
        give_up = time.monotonic() + START_S
        while run("status").returncode != 0 or any(parts()[name]["pid"] == before[name]["pid"] for name in struck):
            assert time.monotonic() < give_up, (home / "logs/supervisor.log").read_text()
            time.sleep(0.5)
        assert all(parts()[name]["address"] == before[name]["address"] for name in plan.PARTS)

        record = json.loads((home / "stack.json").read_text())
        began = time.monotonic()
        os.kill(record["pid"], signal.SIGTERM)
        while (home / "stack.json").exists() and time.monotonic() < began + 2 * STOP_S:
            time.sleep(0.05)
        took_s = time.monotonic() - began
        assert watch.marked(record["stack"]) == []
        assert took_s < STOP_S
    finally:
        run("down")

"""The local stack as a person runs it: the real command, real servers, killed and stopped in every way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from freshet.stack import watch

PATIENCE_S = 60.0
FRESHET = [sys.executable, "-m", "freshet"]

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


class Stack:
    """`freshet` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")} | {
            "FRESHET_HOME": str(home)
        }

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FRESHET, *words], env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def part(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in self.status()["parts"] if each["name"] == name)
        return found

    def mark(self) -> str:
        return str(json.loads((self.home / "stack.json").read_text())["stack"])


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "home")
    yield made
    made.run("down")


def test_the_whole_life_of_a_stack(stack: Stack) -> None:
    started = stack.run("up", "--only", "kafka,redis", "--detach")
    assert started.returncode == 0, started.stderr
    mark = stack.mark()

    now = stack.status()
    assert now["running"]
    assert [(each["name"], each["health"], each["restarts"]) for each in now["parts"]] == [
        ("kafka", "healthy", 0),
        ("redis", "healthy", 0),
    ]
    assert all(psutil.pid_exists(each["pid"]) and each["memory_mb"] > 1 for each in now["parts"])

    again = stack.run("up", "--only", "redis")
    assert again.returncode == 0
    assert "already runs" in again.stderr
    assert "healthy" in again.stdout
    more = stack.run("up")
    assert (more.returncode, "does not include" in more.stderr) == (1, True)

    # what dies comes back, at its address, with its data
    url, pid = stack.part("redis")["address"], stack.part("redis")["pid"]
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        time.sleep(1.1)  # the append-only file is on disk within a second, by its setting
    os.kill(pid, signal.SIGKILL)
    until(lambda: stack.part("redis")["restarts"] == 1 and stack.part("redis")["health"] == "healthy")
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"

    down = stack.run("down")
    assert (down.returncode, watch.marked(mark)) == (0, [])
    gone = stack.run("status")
    assert (gone.returncode, "freshet up" in gone.stderr) == (3, True)
    assert stack.run("down").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_foreground_stops_everything(stack: Stack, number: signal.Signals) -> None:
    process = subprocess.Popen([*FRESHET, "up", "--only", "redis"], env=stack.env, stderr=subprocess.PIPE, text=True)
    until(lambda: (stack.home / "stack.json").exists() and stack.part("redis")["health"] == "healthy")
    mark = stack.mark()
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert watch.marked(mark) == []
    assert "redis        healthy" in said


def test_a_killed_supervisor_leaves_nobody(stack: Stack) -> None:
    assert stack.run("up", "--only", "redis", "--detach").returncode == 0
    mark, supervisor = stack.mark(), stack.status()["pid"]
    assert len(watch.marked(mark)) == 1
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: watch.marked(mark) == [])
    assert stack.run("status").returncode == 3
    assert stack.run("up", "--only", "redis", "--detach").returncode == 0  # and the home is usable again


def test_a_part_that_cannot_start_is_named_with_its_last_words(stack: Stack) -> None:
    (stack.home / "redis").mkdir(parents=True)
    (stack.home / "redis" / "appendonly.aof").write_text("this is no append-only file\n")
    failed = stack.run("up", "--only", "redis", "--detach", "--wait", "5")
    assert failed.returncode == 1
    assert "redis: restarting ended with exit code 1" in failed.stderr
    assert "Bad file format" in failed.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(("up", "--only", "kafka,rediss"), "'rediss'"), (("--home", "/proc/none", "status"), "nothing runs")],
)
def test_what_cannot_be_done_is_said(stack: Stack, words: tuple[str, ...], said: str) -> None:
    done = stack.run(*words)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_quick_to_load_and_names_every_command(stack: Stack) -> None:
    heavy = {"torch", "feast", "mlflow", "faust", "aiokafka", "bentoml", "pandas", "numpy"}
    code = "import sys; from freshet.cli import main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)
    page = stack.run("--help").stdout
    commands = [
        "up",
        "down",
        "status",
        "demo",
        "replay",
        "simulate",
        "backfill",
        "train",
        "recommend",
        "verify",
        "drift",
        "settings",
        "env",
    ]
    for command in commands:
        assert f" {command} " in page
        assert stack.run(command, "--help").returncode == 0

"""The supervisor, on real processes: order, restarts, the end within its time, nobody left."""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from freshet.stack import probes, watch
from freshet.stack.parts import Condition, Health, Part, waves
from freshet.stack.ports import choose
from freshet.stack.supervisor import Supervisor

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PATIENCE_S = 30.0


def part(folder: Path, name: str, code: str, **options: object) -> Part:
    return Part(name, lambda: [sys.executable, "-c", code], folder / f"{name}.log", **options)  # type: ignore[arg-type]


class Run:
    """A supervisor at work, and everything that it said."""

    def __init__(self, *parts: Part) -> None:
        self.said: list[tuple[str, Health, str]] = []
        self.mark = f"supervisor-{uuid.uuid4().hex}"
        self.supervisor = Supervisor(parts, self.mark, {}, self._hear)
        self.conditions = self.supervisor.conditions

    def _hear(self, condition: Condition) -> None:
        self.said.append((condition.part.name, condition.health, condition.message))

    async def __aenter__(self) -> "Run":
        self.task = asyncio.create_task(self.supervisor.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.supervisor.stop()
        await self.task

    async def until(self, holds: Callable[[], bool]) -> None:
        async def look() -> None:
            while not holds():
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.02)

        await asyncio.wait_for(look(), PATIENCE_S)

    async def well(self, *names: str) -> None:
        await self.until(lambda: all(self.conditions[name].health in (Health.HEALTHY, Health.DONE) for name in names))


async def test_a_part_waits_for_what_it_needs(tmp_path: Path) -> None:
    first = part(tmp_path, "first", "", once=True)
    second = part(tmp_path, "second", SLEEP, needs=("first",))
    async with Run(second, first) as run:
        await run.well("second")
    order = [(name, health) for name, health, _ in run.said]
    assert order.index(("first", Health.DONE)) < order.index(("second", Health.STARTING))
    assert run.conditions["second"].pid is None


async def test_what_is_killed_comes_back(tmp_path: Path) -> None:
    async with Run(part(tmp_path, "a", SLEEP)) as run:
        await run.well("a")
        before = run.conditions["a"].pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await run.until(lambda: run.conditions["a"].restarts == 1 and run.conditions["a"].health is Health.HEALTHY)
        assert run.conditions["a"].pid not in (before, None)
        assert any("killed by SIGKILL" in message for _, _, message in run.said)
        assert (tmp_path / "a.log").read_text().count("--- a starts") == 2


async def test_what_fails_is_tried_again_with_longer_pauses_and_says_why(tmp_path: Path) -> None:
    async with Run(part(tmp_path, "a", "raise SystemExit(7)")) as run:
        await run.until(lambda: run.conditions["a"].restarts == 2)
    told = [message for _, health, message in run.said if health is Health.RESTARTING]
    assert [message.split(";")[:2] for message in told[:2]] == [
        ["ended with exit code 7", " starts again in 0.2 s"],
        ["ended with exit code 7", " starts again in 1 s"],
    ]
    assert str(tmp_path / "a.log") in told[0]


async def test_a_command_that_cannot_be_made_is_a_message_not_an_end(tmp_path: Path) -> None:
    def command() -> list[str]:
        raise RuntimeError("no jars")

    async with Run(Part("a", command, tmp_path / "a.log"), part(tmp_path, "b", SLEEP)) as run:
        await run.well("b")
        await run.until(lambda: run.conditions["a"].restarts == 1)
    assert any("no jars" in message for _, _, message in run.said)


async def test_a_part_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    async with Run(part(tmp_path, "a", STUBBORN)) as run:
        await run.well("a")
        await run.until(lambda: "deaf" in (tmp_path / "a.log").read_text())
        pid = run.conditions["a"].pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_needs_stop_after_those_that_need_them(tmp_path: Path) -> None:
    async with Run(part(tmp_path, "base", SLEEP), part(tmp_path, "top", SLEEP, needs=("base",))) as run:
        await run.well("base", "top")
    assert [name for name, health, _ in run.said if health is Health.STOPPED] == ["top", "base"]


async def test_a_part_that_hangs_is_unhealthy_and_then_healthy_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshet.stack.supervisor.RUNNING_EVERY_S", 0.1)
    monkeypatch.setattr(probes, "PATIENCE_S", 0.3)
    port = choose(31_500)
    server = Part(
        "web",
        lambda: [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(tmp_path)],
        tmp_path / "web.log",
        probe=probes.http("127.0.0.1", port, "/"),
    )
    async with Run(server) as run:
        await run.well("web")
        pid = run.conditions["web"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await run.until(lambda: run.conditions["web"].health is Health.UNHEALTHY)
        assert "does not answer" in run.conditions["web"].message
        os.kill(pid, signal.SIGCONT)
        await run.well("web")
        assert run.conditions["web"].pid == pid


ORPHANING = (
    "import subprocess, sys, time\n"
    "serve = [sys.executable, '-m', 'http.server', sys.argv[1], '--bind', '127.0.0.1']\n"
    "subprocess.Popen(serve, start_new_session=True)\n"
    "time.sleep(600)"
)


async def test_an_answer_of_another_program_is_no_health(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        writer.close()

    port = choose(31_600)
    ours = part(tmp_path, "ours", SLEEP, port=port, probe=probes.http("127.0.0.1", port, "/"))
    async with Run(ours) as run:
        await run.until(lambda: run.conditions["ours"].pid is not None)
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            await ours.probe()  # type: ignore[misc] # it does answer
            await asyncio.sleep(1)
            assert run.conditions["ours"].health is Health.STARTING
            os.kill(run.conditions["ours"].pid or 0, signal.SIGKILL)
            await run.until(lambda: "taken by another program" in run.conditions["ours"].message)


async def test_orphans_of_a_killed_part_do_not_keep_its_port(tmp_path: Path) -> None:
    port = choose(31_700)
    command = [sys.executable, "-c", ORPHANING, str(port)]
    web = Part("web", lambda: command, tmp_path / "web.log", port=port, probe=probes.http("127.0.0.1", port, "/"))
    async with Run(web) as run:
        await run.well("web")
        os.kill(run.conditions["web"].pid or 0, signal.SIGKILL)
        await run.until(lambda: run.conditions["web"].restarts == 1 and run.conditions["web"].health is Health.HEALTHY)
        assert len(watch.marked(run.mark, "web")) == 2
    # what left its part's process group is found by the mark
    watch.sweep(run.mark)
    assert watch.marked(run.mark) == []


@pytest.mark.parametrize("code", ["500", "404"])
async def test_only_a_200_is_health(code: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {code} No\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        ask: Callable[[], Awaitable[None]] = probes.http("127.0.0.1", server.sockets[0].getsockname()[1], "/healthz")
        with pytest.raises(OSError, match=f"/healthz answers {code}"):
            await ask()


def test_parts_that_need_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="circle: a, b"):
        waves([part(tmp_path, "a", "", needs=("b",)), part(tmp_path, "b", "", needs=("a",))])

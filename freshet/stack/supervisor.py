"""Runs parts: starts them in order, restarts what dies, stops all of them in time.

It knows nothing of what the parts are; it tells each change to its `listener`. Files and signals are left to `up`.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

from freshet.stack import watch
from freshet.stack.parts import WELL, Condition, Health, Part, waves
from freshet.stack.ports import is_free, listens

BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the restarts of a part. At first short, as a crash is often single; the last one repeats."""
STEADY_S = 10.0
"""A part that was well for this long begins again with the first pause."""
STARTING_EVERY_S, RUNNING_EVERY_S = 0.2, 2.0
"""How often a part that starts, and one that runs, is asked how it does."""
FAILURES_TO_UNHEALTHY = 2
"""One missed answer of a busy machine is no news."""
GRACE_S = (4.5, 3.5)
"""Time to end politely, for the wave that stops first and for each later one. With the final sweep: below 10 s."""
LOG_BYTES = 20_000_000
"""A log that is larger when its part starts is put aside as `.old`."""

Listener = Callable[[Condition], None]


class Supervisor:
    """The parts of one stack. `run` returns when `stop` was called and everything has ended."""

    def __init__(self, parts: Sequence[Part], mark: str, env: dict[str, str], listener: Listener) -> None:
        """Every process carries `mark` (see `watch`) and `env`; `listener` hears of every change, in the loop."""
        self.conditions = {part.name: Condition(part) for part in parts}
        self._mark, self._env, self._listener = mark, env, listener
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._well = {part.name: asyncio.Event() for part in parts}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask for the end. Asked again: no more patience with any part."""
        if self._stop.is_set():
            for process in self._processes.values():
                _signal(process, signal.SIGKILL)
        self._stop.set()

    async def run(self) -> None:
        """Start everything and keep it running until `stop`."""
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(condition)) for condition in self.conditions.values()]
                await self._stop.wait()
                for keeper in keepers:
                    keeper.cancel()
        finally:
            await self._end_all()

    async def _end_all(self) -> None:
        for number, wave in enumerate(reversed(waves(condition.part for condition in self.conditions.values()))):
            grace_s = GRACE_S[min(number, len(GRACE_S) - 1)]
            await asyncio.gather(*(self._end(part.name, grace_s) for part in wave))

    async def _end(self, name: str, grace_s: float) -> None:
        process = self._processes.pop(name, None)
        if process and process.returncode is None:
            _signal(process, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                _signal(process, signal.SIGKILL)
                await process.wait()
        condition = self.conditions[name]
        condition.pid = None
        self._note(condition, Health.STOPPED)

    async def _keep(self, condition: Condition) -> None:
        part, failures = condition.part, 0
        for need in part.needs:
            if need in self._well:
                await self._well[need].wait()
        while True:
            self._note(condition, Health.STARTING)
            began = time.monotonic()
            reason = await self._run_once(condition)
            if reason is None:
                self._note(condition, Health.DONE)
                return
            failures = 0 if time.monotonic() - began > STEADY_S else failures
            pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            condition.restarts += 1
            self._note(condition, Health.RESTARTING, f"{reason}; starts again in {pause_s:g} s; see {part.log}")
            await asyncio.sleep(pause_s)

    async def _run_once(self, condition: Condition) -> str | None:
        """Run the part to its end. Returns why that was not wanted, or None when a part that runs once succeeded."""
        part = condition.part
        if part.port and not is_free(part.port):
            return f"port {part.port} is taken by another program"
        try:
            command = await asyncio.to_thread(part.command)
            process = await self._spawn(part, command)
        except Exception as error:  # whatever a part's preparation raises concerns that part only
            return str(error) or repr(error)
        condition.pid = process.pid
        self._processes[part.name] = process
        ended = asyncio.create_task(process.wait())
        try:
            await self._watch(condition, ended)
        finally:
            ended.cancel()
        condition.pid = None
        del self._processes[part.name]
        await asyncio.to_thread(watch.sweep, self._mark, 0.5, part.name)  # its orphans would keep the port
        code = process.returncode
        if part.once and code == 0:
            return None
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def _watch(self, condition: Condition, ended: "asyncio.Task[int]") -> None:
        """Ask the part how it does until it has ended."""
        part, missed = condition.part, 0
        if part.probe is None and not part.once:
            self._note(condition, Health.HEALTHY)
        while True:
            running = condition.health in (Health.HEALTHY, Health.UNHEALTHY)
            await asyncio.wait([ended], timeout=RUNNING_EVERY_S if running else STARTING_EVERY_S)
            if ended.done():
                return
            if part.probe is None:
                continue
            try:
                await _unless(ended, part.probe())
            except OSError as error:
                missed += 1
                if running and missed >= FAILURES_TO_UNHEALTHY:
                    self._note(condition, Health.UNHEALTHY, f"does not answer: {error.strerror or error}")
            else:
                missed = 0
                if not ended.done() and (running or await _answers_itself(condition)):
                    self._note(condition, Health.HEALTHY)

    async def _spawn(self, part: Part, command: list[str]) -> asyncio.subprocess.Process:
        with _log(part) as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self._env, **part.env, watch.MARK: self._mark, watch.PART: part.name},
                start_new_session=True,  # so that Ctrl-C reaches us and not them: they end in order
            )

    def _note(self, condition: Condition, health: Health, message: str = "") -> None:
        if health in WELL:
            self._well[condition.part.name].set()
        if condition.set(health, message):
            self._listener(condition)


async def _unless(ended: "asyncio.Task[int]", question: Awaitable[None]) -> None:
    """Await the answer, but no longer than the process lives."""
    asking = asyncio.ensure_future(question)
    await asyncio.wait([asking, ended], return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        await asking
    else:
        asking.cancel()


async def _answers_itself(condition: Condition) -> bool:
    """Whether the answer came from this part, and not from another program on the same port."""
    pid, port = condition.pid, condition.part.port
    return port is None or (pid is not None and await asyncio.to_thread(listens, pid, port))


def _log(part: Part) -> BinaryIO:
    part.log.parent.mkdir(parents=True, exist_ok=True)
    if part.log.exists() and part.log.stat().st_size > LOG_BYTES:
        part.log.replace(part.log.with_suffix(".old"))
    log = part.log.open("ab")
    log.write(f"--- {part.name} starts, {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())
    log.flush()
    return log


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal the session that the part began, so that its children get it too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)

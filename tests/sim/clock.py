"""Virtual time: an asyncio loop that never waits, and processes on it that can be killed, stopped and woken.

All that a schedule leaves to chance is how long each request takes; callbacks run in asyncio's own order.
"""

import asyncio
import random
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

LATENCIES_S = (*(0.0, 0.0, 0.001, 0.004, 0.02, 0.09) * 5, 0.6)


class Stuck(RuntimeError):
    """Everything waits and nothing is under way."""


class Left(BaseException):
    """A process has ended; nothing of it may go on."""


class Loop(asyncio.BaseEventLoop):
    """Time passes when nothing is ready, at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now, self._selector, self._clock_resolution = 0.0, self, 1e-9
        self.over = False
        self.made: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make)

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, **more)
        task._log_destroy_pending = False
        self.made.append(task)
        return task

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise Stuck
        self._now += timeout
        return ()

    def _process_events(self, events: object) -> None: ...
    def _write_to_self(self) -> None: ...

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return None if self.over else super().call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:
        return self.create_task(PROCESS.get().request(lambda: func(*args)))

    def end(self) -> None:
        """Drop what still waits, without running any of it."""
        self.over = True
        for task in self.made:
            if not task.done():
                task.get_coro().close()  # type: ignore[union-attr]
            elif not task.cancelled():
                task.exception()
        self.made.clear()
        self._ready.clear()
        self._scheduled.clear()
        self.close()


class Process:
    """What can die. A request that is on the wire arrives even when its sender is dead or stopped by then."""

    def __init__(self, name: str, slot: int, chance: random.Random, ended: Callable[["Process", str], None]) -> None:
        self.slot = slot
        """Which of its kind it is; whoever is started in its place is the same."""
        self.name, self.alive, self.chance, self._ended = name, True, chance, ended
        self.running = asyncio.Event()
        self.running.set()
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    async def gate(self) -> None:
        if not self.running.is_set():
            await self.running.wait()
        if not self.alive:
            await asyncio.get_running_loop().create_future()

    async def request(self, apply: Callable[[], Any]) -> Any:
        await self.gate()
        await asyncio.sleep(self.chance.choice(LATENCIES_S))
        answer = apply()
        await asyncio.sleep(self.chance.choice(LATENCIES_S))
        await self.gate()
        return answer

    def start(self, coro: Any) -> "asyncio.Task[Any]":
        return self.context.run(asyncio.get_running_loop().create_task, coro)

    def exit(self, why: str) -> None:
        """SIGKILL, or the way out of the engine."""
        if self.alive:
            self.alive = False
            self.running.set()
            self._ended(self, why)


PROCESS: ContextVar[Process] = ContextVar("process")


def leave(what: str, todo: str, cause: BaseException | None = None) -> None:
    """In the place of `streams.engine.leave.leave`."""
    if asyncio._get_running_loop() is None:  # the schedule is over: coroutines are being closed
        raise GeneratorExit
    PROCESS.get().exit(what)
    raise Left

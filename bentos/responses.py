"""Logs what was asked and served, with the values that it was served by, to Kafka; answering never waits for it."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec
from prometheus_client import Counter

from freshet.settings import Settings
from streams.publisher import Publisher, PublishError, Record
from streams.topics import REQUESTS, RESPONSES

QUEUE = 5_000
"""Answers waiting for Kafka: about 25 MB. Beyond it they are dropped and counted."""
TOGETHER, WAIT_S = 200, 0.2
"""So many answers are written at once, or as many as come in so long: what a write for each costs, here and in the
broker, is a sixth of a whole answer. A process that is killed leaves those that waited out of the log."""
SAY_S = 10.0
"""How often the log says that answers are dropped; the metric counts each."""
encode = msgspec.json.Encoder().encode

DROPPED = Counter(
    "freshet_serve_log_dropped", "Answers that could not be logged: they are missing from training and audits."
)
log = logging.getLogger(__name__)


class ResponseLog:
    """A bounded queue and the task that empties it."""

    def __init__(self, settings: Settings) -> None:
        self._publisher = Publisher(settings)
        self._queue: asyncio.Queue[tuple[bytes, Mapping[str, Any], Mapping[str, Any]]] = asyncio.Queue(QUEUE)
        self._task: asyncio.Task[None] | None = None
        self._said = 0.0

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write what is queued, for at most two seconds, and end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._queue.join()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._publisher.stop()

    def put(self, user_id: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        """Queue one answer."""
        try:
            self._queue.put_nowait((user_id.encode(), request, response))
        except asyncio.QueueFull:
            DROPPED.inc()
            if monotonic() - self._said > SAY_S:
                self._said = monotonic()
                log.error("%d answers wait for Kafka: answers are dropped from the log until it takes some", QUEUE)

    async def _write(self) -> None:
        while True:
            taken = [await self._queue.get()]
            if self._queue.qsize() < TOGETHER:
                await asyncio.sleep(WAIT_S)
            while len(taken) < TOGETHER and not self._queue.empty():
                taken.append(self._queue.get_nowait())
            written = [pair for one in taken if (pair := _written(*one)) is not None]
            try:
                await self._publisher.send(REQUESTS, [request for request, _ in written])
                await self._publisher.send(RESPONSES, [response for _, response in written])
            except PublishError as error:
                DROPPED.inc(len(written))
                log.warning("%d answers were not logged: %s", len(written), error)
            finally:
                for _ in taken:
                    self._queue.task_done()


def _written(key: bytes, request: Mapping[str, Any], response: Mapping[str, Any]) -> tuple[Record, Record] | None:
    """Both as records; None where that cannot be, which is counted: a context holds whatever a client sends."""
    try:
        return (key, encode(request)), (key, encode(response))
    except Exception as error:  # one answer must not end the log of all others
        DROPPED.inc()
        log.warning("an answer was not logged: %r", error)
        return None

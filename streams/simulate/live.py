"""Live: a steady stream of events of a world, sent through ingest at a chosen rate as if they happened now."""

import asyncio
import math
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from freshet.settings import Settings
from streams.aggregates import MINUTE, SECOND
from streams.catalogue import Progress
from streams.events import Micros
from streams.simulate.client import Client, Latency
from streams.simulate.sessions import KINDS, act, draw_visits
from streams.simulate.shopper import EventBody
from streams.simulate.world import World, WorldSpec

TICK_S = 0.1
"""One request to ingest in this time: a tenth of a second's events share its cost."""
VISITS = 256
"""Visits that go on at the same time."""
IN_FLIGHT = 8
"""Requests that may wait for their acknowledgement before the stream itself waits."""
CATCH_UP_S = 0.5
"""At most so much of the stream goes into one request when it is behind."""


class LiveReport(msgspec.Struct, frozen=True):
    """What a live stream did. `per_second` is what went in; `behind_s` how late the stream was at its end."""

    events: int
    refused: int
    errors: int
    last_error: str | None
    seconds: float
    per_second: float
    behind_s: float
    ingest: Latency


def happenings(world: World, seed: int, at: Micros) -> Iterator[EventBody]:
    """Events of the world as at one time, without end and without times of their own: ingest gives them its clock."""
    rng = np.random.default_rng((seed, 3))
    session = 0
    while True:
        visits = draw_visits(world, VISITS, at, at + 10 * MINUTE, rng)
        columns = act(world, visits, session, rng)
        columns = columns.rows(np.argsort(columns.at, kind="stable"))
        session += VISITS
        for user, item, kind, value, number, position in zip(
            columns.user.tolist(), columns.item.tolist(), columns.kind.tolist(), columns.value.tolist(),
            columns.session.tolist(), columns.position.tolist(), strict=True,
        ):  # fmt: skip
            event: EventBody = {"user_id": world.user_ids[user], "item_id": world.item_ids[item], "type": KINDS[kind]}
            event["session_id"] = f"live-{seed}-{at}-{number}"
            if not math.isnan(value):
                event["value"] = value
            if position >= 0:
                event["properties"] = {"position": position}
            yield event


def live(
    settings: Settings, rate: float = 1_000.0, seconds: float | None = None, seed: int = 1, shift: bool = False,
    world: World | None = None, progress: Progress | None = None, stop: asyncio.Event | None = None,
) -> LiveReport:  # fmt: skip
    """`flow`, for callers without an event loop."""
    return asyncio.run(flow(settings, rate, seconds, seed, shift, world, progress, stop))


async def flow(
    settings: Settings, rate: float = 1_000.0, seconds: float | None = None, seed: int = 1, shift: bool = False,
    world: World | None = None, progress: Progress | None = None, stop: asyncio.Event | None = None,
) -> LiveReport:  # fmt: skip
    """Send `rate` events a second for so many seconds (None: until `stop` is set or the caller cancels).

    With `shift`, the world of the home folder shifts now, for good: the reserve goes on sale, tastes change.
    Raises `ConnectionError` when ingest does not take a single event.
    """
    at = time.time_ns() // 1000
    world = world or (await _shifted(settings, at) if shift else World(WorldSpec.load(settings)))
    source, mark = happenings(world, seed, at), f"live-{seed}-{at}"
    stop = stop or asyncio.Event()
    made, gate = 0, asyncio.Semaphore(IN_FLIGHT)
    began = time.monotonic()
    total = None if seconds is None else round(rate * seconds)
    async with Client(settings, IN_FLIGHT) as client:

        async def send(batch: list[EventBody]) -> None:
            try:
                if not await client.send(batch) and not client.sent:
                    raise ConnectionError(client.last_error)
            finally:
                gate.release()

        failed: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while not stop.is_set() and (total is None or made < total):
                    await gate.acquire()
                    due = int((time.monotonic() - began + TICK_S) * rate) - made
                    due = max(1, min(due, settings.max_batch_events, int(rate * CATCH_UP_S) + 1))
                    batch = [next(source) for _ in range(due if total is None else min(due, total - made))]
                    for event in batch:
                        event["event_id"] = f"{mark}-{made}"
                        made += 1
                    group.create_task(send(batch))
                    if progress:
                        progress("events", made, total)
                    await asyncio.sleep(max(0.0, made / rate - (time.monotonic() - began)))
        except* ConnectionError as errors:
            failed = errors.exceptions[0]  # raised in here, it might come in a group again
        if failed is not None:
            raise failed
        behind = time.monotonic() - began - made / rate
    took = time.monotonic() - began
    return LiveReport(
        events=client.sent, refused=client.refused, errors=client.errors, last_error=client.last_error, seconds=took,
        per_second=client.sent / took, behind_s=max(0.0, behind), ingest=Latency.of(client.sent_s),
    )  # fmt: skip


async def _shifted(settings: Settings, at: Micros) -> World:
    """The world of the home folder, shifted now if it was not before, with the reserve in the catalogue."""
    spec = WorldSpec.load(settings)
    if spec.shift_at is None:
        spec = msgspec.structs.replace(spec, shift_at=at - SECOND)
    world = World(spec)
    async with Client(settings, 1) as client:
        if not await client.send_items(world.catalogue[spec.items :]):
            raise ConnectionError(f"ingest takes nothing: {client.last_error}")
    spec.save(settings)
    return world

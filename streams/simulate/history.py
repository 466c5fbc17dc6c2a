"""History: the past of a world as a source that can be replayed, and the command that plants and sends it."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import msgspec
import numpy as np

from freshet.settings import Settings
from streams.aggregates import DAY
from streams.catalogue import Item, Progress
from streams.events import Micros
from streams.replay.interactions import Ids, Interactions
from streams.replay.player import ReplayReport, play
from streams.simulate.sessions import KINDS, PER_SESSION, Columns, act, draw_visits
from streams.simulate.world import World, WorldSpec


@dataclass(frozen=True)
class History:
    """The last `events` events of a world, as a source for `streams.replay.play`."""

    world: World
    events: int

    name = "simulated"
    prefix = "sim"
    repeats = False

    def fingerprint(self) -> str:
        return blake2b(msgspec.json.encode((self.world.spec, self.events)), digest_size=6).hexdigest()

    def items(self) -> Iterable[Item]:
        return self.world.catalogue

    def interactions(self) -> Interactions:
        columns, world = self.columns, self.world
        mark = self.fingerprint()
        at_place = [{"position": place} for place in range(64)]
        return Interactions(
            users=Ids(columns.user, world.user_ids),
            items=Ids(columns.item, world.item_ids),
            types=Ids(columns.kind, list(KINDS)),
            times=columns.at,
            values=columns.value,
            sessions=[f"{mark}-s{n}" for n in columns.session.tolist()],
            properties=[at_place[p] if p >= 0 else None for p in columns.position.tolist()],
            event_ids=[f"{self.prefix}-{mark}-{n}" for n in range(len(columns))],
        )

    @cached_property
    def columns(self) -> Columns:
        """The events in order of time, all before the world's end."""
        spec = self.world.spec
        rng = np.random.default_rng((spec.seed, 1))
        parts: list[Columns] = []
        sessions = have = 0
        while have < self.events:
            visits = draw_visits(
                self.world, int(1.1 * (self.events - have) / PER_SESSION) + 64, spec.start, spec.end, rng
            )
            part = act(self.world, visits, sessions, rng)
            part = part.rows(part.at < spec.end)
            parts.append(part)
            sessions, have = sessions + len(visits.user), have + len(part)
        drawn = Columns.joined(parts)
        return drawn.rows(np.argsort(drawn.at, kind="stable")[-self.events :])


def run(
    settings: Settings, *, events: int = 200_000, users: int | None = None, items: int = 1_000, days: float = 30.0,
    seed: int = 1, speed: float | None = None, shift_days: float | None = None, end: Micros | None = None,
    progress: Progress | None = None,
) -> ReplayReport:  # fmt: skip
    """`plant`, for callers without an event loop."""
    return asyncio.run(
        plant(
            settings, events=events, users=users, items=items, days=days, seed=seed, speed=speed, shift_days=shift_days,
            end=end, progress=progress,
        )
    )  # fmt: skip


async def plant(
    settings: Settings, *, events: int = 200_000, users: int | None = None, items: int = 1_000, days: float = 30.0,
    seed: int = 1, speed: float | None = None, shift_days: float | None = None, end: Micros | None = None,
    progress: Progress | None = None,
) -> ReplayReport:  # fmt: skip
    """Grow a world, send its last `events` events (those of `days` days up to `end`, which is now), and keep its spec.

    `users` is one for every hundred events unless given. `shift_days`: the shift happened so long before the end.
    The same arguments give the same events, ids and times included. Raises `PublishError`.
    """
    if events < 1 or items < 50 or days <= 0:
        raise ValueError("a world needs at least one event, fifty items and some days")
    end = end or time.time_ns() // 1000
    spec = WorldSpec(
        seed=seed,
        users=users or max(50, events // 100),
        items=items,
        start=end - int(days * DAY),
        end=end,
        reserve=items // 8,
        shift_at=None if shift_days is None else end - int(shift_days * DAY),
    )
    report = await play(settings, History(World(spec), events), speed, resume=False, progress=progress)
    spec.save(settings)
    return report

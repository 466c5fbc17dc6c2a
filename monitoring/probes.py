"""How fresh and how fast the line is, measured from outside: requests go in by HTTP and their effect is waited for.

`freshness` answers "how long after POST /events does the feature, and then the recommendation, know of it", while a
load flows; `latency` answers "how long does /recommend take". Both run in a process of their own, beside the line.
What the processes say of themselves is left to their `/metrics`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from feature_repo.online import OnlineUsers
from freshet.settings import Settings
from streams.profiles import header

TICK_S = 0.05
"""The load is sent in one request a tick: small enough not to come in bursts, large enough to cost the door little."""
POLL_S = 0.004
PATIENCE_S = 15.0
"""A probe that is not answered by then fails: the line stands still, and a quantile over it would hide that."""


class Stuck(RuntimeError):
    """An event was acknowledged and its effect did not show."""


@dataclass(frozen=True)
class Quantiles:
    """Of one measurement, milliseconds."""

    n: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Quantiles":
        """Nearest-rank quantiles. Raises `ValueError` on no data."""
        if not seconds:
            raise ValueError("nothing was measured")
        ordered = sorted(s * 1_000 for s in seconds)
        rank = [min(len(ordered) - 1, int(q * len(ordered))) for q in (0.5, 0.99)]
        return cls(len(ordered), ordered[rank[0]], ordered[rank[1]], ordered[-1])


@dataclass(frozen=True)
class Freshness:
    """From the moment `POST /events` is sent: until Redis holds it, and until /recommend answers with it."""

    store: Quantiles
    recommend: Quantiles
    events_per_s: float


@dataclass(frozen=True)
class Latency:
    """Of `POST /recommend`, as a client sees it."""

    answer: Quantiles
    per_s: float
    connections: int


def _headers(settings: Settings) -> dict[str, str]:
    return {} if settings.api_key is None else {"X-Api-Key": settings.api_key.get_secret_value()}


def _event(user: str, item: str) -> dict[str, str]:
    return {"user_id": user, "item_id": item, "type": "click"}


async def _flow(client: httpx.AsyncClient, users: Sequence[str], items: Sequence[str], rate: int) -> AsyncIterator[int]:
    """Send `rate` events a second, yielding how many went in, tick by tick."""
    draw, start, sent = random.Random(1), time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * rate) - sent
        if due > 0:
            batch = [_event(draw.choice(users), draw.choice(items)) for _ in range(due)]
            (await client.post("/events", json=batch)).raise_for_status()
            sent += due
        yield sent
        await asyncio.sleep(TICK_S)


@asynccontextmanager
async def load(settings: Settings, users: Sequence[str], items: Sequence[str], rate: int) -> AsyncIterator[list[int]]:
    """`rate` clicks a second through the door for as long as the block runs; the list's element counts them."""
    sent = [0]

    async def run(client: httpx.AsyncClient) -> None:
        async for n in _flow(client, users, items, rate):
            sent[0] = n

    async with httpx.AsyncClient(base_url=settings.ingest_url, headers=_headers(settings), timeout=30) as client:
        task = asyncio.create_task(run(client))
        try:
            yield sent
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def freshness(
    settings: Settings, users: Sequence[str], items: Sequence[str], *, rate: int = 1_000, probes: int = 100
) -> Freshness:
    """Send one click of a user of the probe's own, wait for its effect, `probes` times; half wait for /recommend.

    Raises `Stuck` when an effect does not show within `PATIENCE_S`.
    """
    store: list[float] = []
    recommend: list[float] = []
    online = OnlineUsers(settings)
    key = _headers(settings)
    async with (
        httpx.AsyncClient(base_url=settings.ingest_url, headers=key, timeout=30) as door,
        httpx.AsyncClient(base_url=settings.serve_url, headers=key, timeout=30) as service,
        load(settings, users, items, rate) as sent,
    ):
        draw = random.Random(1)
        await asyncio.sleep(2)  # let the load settle
        begin, before = time.monotonic(), sent[0]

        async def stored(user: str) -> int:
            row = await online.get(user)
            head = None if row is None else header(row)
            return -1 if head is None else head.version

        async def served(user: str) -> int:
            answer = await service.post("/recommend", json={"user_id": user, "k": 10})
            return int(answer.raise_for_status().json()["user_version"])

        for n in range(probes):
            user, read, out = f"probe-{n % 10}", (stored, served)[n % 2], (store, recommend)[n % 2]
            old = await read(user)
            start = time.monotonic()
            (await door.post("/events", json=_event(user, items[n % len(items)]))).raise_for_status()
            while await read(user) <= old:
                if time.monotonic() - start > PATIENCE_S:
                    raise Stuck(
                        f"{read.__name__}: no newer state of {user} after {PATIENCE_S:.0f} s; is the worker up?"
                    )
                await asyncio.sleep(POLL_S)
            out.append(time.monotonic() - start)
            await asyncio.sleep(draw.uniform(0, 0.1))  # else probes would fall into step with the commits
        per_s = (sent[0] - before) / (time.monotonic() - begin)
    await online.close()
    return Freshness(Quantiles.of(store), Quantiles.of(recommend), per_s)


async def latency(
    settings: Settings, users: Sequence[str], *, connections: int = 4, requests: int = 2_000, k: int = 20
) -> Latency:
    """`requests` recommendations over `connections` connections, each asking again as soon as it is answered."""
    took: list[float] = []
    left = iter(range(requests))
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(
        base_url=settings.serve_url, headers=_headers(settings), limits=limits, timeout=30
    ) as client:

        async def ask(draw: random.Random, out: list[float]) -> None:
            start = time.monotonic()
            (await client.post("/recommend", json={"user_id": draw.choice(users), "k": k})).raise_for_status()
            out.append(time.monotonic() - start)

        async def connection(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(20):
                await ask(draw, [])  # warm
            for _ in left:
                await ask(draw, took)

        start = time.monotonic()
        await asyncio.gather(*(connection(seed) for seed in range(connections)))
        seconds = time.monotonic() - start
    return Latency(Quantiles.of(took), (len(took) + 20 * connections) / seconds, connections)

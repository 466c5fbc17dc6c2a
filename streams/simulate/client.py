"""The client that simulated users share: one HTTP session to serving and ingest, and what it measured of them."""

import asyncio
import time
from typing import Any, Self

import aiohttp
import msgspec
import numpy as np

from freshet.settings import Settings
from streams.catalogue import Item
from streams.simulate.shopper import EventBody

TIMEOUT_S = 10.0
TRIES = 5
"""Of one batch of events. Each event has an id of its own, so that trying again never counts twice."""
PAUSE_S = 1.0

_encode = msgspec.json.Encoder().encode
_JSON = {"content-type": "application/json"}


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds, of how many requests."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @staticmethod
    def of(seconds: list[float]) -> "Latency":
        """Of measured durations."""
        if not seconds:
            return Latency(0, 0.0, 0.0, 0.0)
        p50, p99, most = (np.quantile(seconds, [0.5, 0.99, 1.0]) * 1_000).round(2).tolist()
        return Latency(len(seconds), p50, p99, most)


PATIENT = {"x-deadline-ms": "10000"}
"""Many shoppers ask at once, and each would rather wait than be told to come back."""


class Client:
    """Asks for recommendations and sends events. Failures are counted, with the last reason, and never hidden."""

    def __init__(self, settings: Settings, connections: int) -> None:
        self._settings, self._connections = settings, connections
        self.asked_s: list[float] = []
        self.sent_s: list[float] = []
        self.sent = 0
        self.refused = 0
        self.errors = 0
        self.last_error: str | None = None

    async def __aenter__(self) -> Self:
        key = self._settings.api_key
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers=_JSON | PATIENT | ({"x-api-key": key.get_secret_value()} if key else {}),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def recommend(self, user_id: str, k: int, arm: str) -> dict[str, Any] | None:
        """An answer of `/recommend`; None when it failed or recommended nothing."""
        body = {"user_id": user_id, "k": k, "context": {"arm": arm}}
        answer = await self._post(f"{self._settings.serve_url}/recommend", body, (200,), self.asked_s)
        if answer is not None and not answer["items"]:
            self._failed(f"/recommend had nothing for user {user_id!r} in arm {arm!r}")
            return None
        return answer

    async def send(self, events: list[EventBody]) -> bool:
        """Send events, each of which must have an id. Whether they went in; refused ones are counted."""
        return await self._send("/events", events)

    async def send_items(self, items: list[Item]) -> bool:
        """Add items to the catalogue."""
        bodies = [msgspec.to_builtins(item) | {"created_at": (item.created_at or 0) / 1e6} for item in items]
        return await self._send("/items", bodies)

    async def _send(self, path: str, bodies: list[EventBody]) -> bool:
        for _ in range(TRIES):
            answer = await self._post(f"{self._settings.ingest_url}{path}", bodies, (202, 422), self.sent_s)
            if answer is not None:
                self.sent += answer["accepted"]
                self.refused += len(answer["refused"])
                return True
            await asyncio.sleep(PAUSE_S)
        return False

    async def _post(
        self, url: str, body: object, expected: tuple[int, ...], durations: list[float]
    ) -> dict[str, Any] | None:
        began = time.perf_counter()
        try:
            async with self._http.post(url, data=_encode(body)) as response:
                data = await response.read()
                durations.append(time.perf_counter() - began)
                if response.status in expected:
                    answer: dict[str, Any] = msgspec.json.decode(data)
                    return answer
                self._failed(f"{url} answered {response.status}: {data[:300].decode(errors='replace')}")
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            self._failed(f"{url}: {error!r}")
        return None

    def _failed(self, why: str) -> None:
        self.errors += 1
        self.last_error = why

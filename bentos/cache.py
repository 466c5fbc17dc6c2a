"""Answers kept in Redis for a moment: who asks the same again, with nothing new known of them, gets the same again.

An answer holds while all that it follows from is the same: the question, the user's state (by its version), the items'
tile, the bundle and the house rules. Only the passing of time is missed, so it is kept for `FRESHET_CACHE_TTL_S` at
most; 0 keeps none.
Equal questions take turns in a process, so that a crowd asks once. A store that does not answer costs only the work.
"""

import asyncio
import logging
from hashlib import blake2b
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec
from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from freshet.settings import Settings

PREFIX = b"freshet:answer:"
TIMEOUT_S = 0.1
AT_ONCE = 1_000
"""Keys looked at, and deleted, at once when all are cleared."""

LOOKS = Counter("freshet_serve_cache", "Looks for a kept answer: hit, miss, stale, error.", ["outcome"])
log = logging.getLogger(__name__)


class Basis(NamedTuple):
    """What an answer follows from, beside its question."""

    user_version: int
    tile: int
    bundle: str | None
    rules: str


class Kept(msgspec.Struct, array_like=True):
    """`shown` is what the client got, `logged` what the log did."""

    basis: Basis
    shown: dict[str, Any]
    logged: dict[str, Any]


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Kept).decode


def key_of(*question: Any) -> bytes:
    """The key of a question: equal ones have the same."""
    return PREFIX + blake2b(msgspec.msgpack.encode(question), digest_size=16).digest()


class Cache:
    """Belongs to one event loop. `on`: whether anything is kept."""

    def __init__(self, settings: Settings) -> None:
        """Connects on the first look."""
        self._ttl_ms = round(settings.cache_ttl_s * 1_000)
        self.on = self._ttl_ms > 0
        self._client = Redis.from_url(settings.redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def turn(self, key: bytes) -> asyncio.Lock:
        """To be held from the look until the answer is kept."""
        return self._turns.setdefault(key, asyncio.Lock())

    async def get(self, key: bytes, basis: Basis) -> Kept | None:
        """What is kept of a question, if it holds on this basis."""
        try:
            data = await self._client.get(key)
            kept = None if data is None else _decode(data)
        except (RedisError, OSError, msgspec.DecodeError) as error:
            LOOKS.labels("error").inc()
            log.warning("kept answers cannot be read: %r", error)
            return None
        holds = kept is not None and kept.basis == basis
        LOOKS.labels("hit" if holds else "miss" if kept is None else "stale").inc()
        return kept if holds else None

    async def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer."""
        try:
            await self._client.set(key, _encode(kept), px=self._ttl_ms)
        except (RedisError, OSError) as error:
            LOOKS.labels("error").inc()
            log.warning("an answer cannot be kept: %r", error)

    async def clear(self) -> int:
        """Forget all kept answers, of every process. How many they were. Raises `RedisError` and `OSError`."""
        gone, cursor = 0, 0
        while True:
            cursor, keys = await self._client.scan(cursor, PREFIX + b"*", AT_ONCE)
            if keys:
                gone += await self._client.unlink(*keys)
            if not cursor:
                return gone

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

"""Reads states from the online store for serving: one round trip, without Feast's SDK, the same bytes that it reads.

Reading values from a state is left to `streams.profiles`; what to do when Redis is away, to the caller.
"""

from collections.abc import Sequence

from redis.asyncio import Redis

from feature_repo.features import item, user
from feature_repo.layout import entity_key, state_field, unpack_bytes
from freshet.settings import Settings
from streams.profiles import Profile

TIMEOUT_S = 0.25
"""A read takes 0.3 ms; an answer without the user's values is better than one that comes after a second."""


class OnlineStates:
    """The states of one profile, by id. Belongs to the event loop that first used it. Raises `RedisError`."""

    def __init__(self, settings: Settings, profile: Profile, timeout_s: float = TIMEOUT_S) -> None:
        """Connects on the first read."""
        self._client = Redis.from_url(settings.redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._join_key = profile.key
        self._field = state_field(profile.name)

    async def get(self, key: str) -> bytes | None:
        """The state of one key, or None when it was never seen."""
        message: bytes | None = await self._client.hget(entity_key(self._join_key, key), self._field)  # type: ignore[misc, arg-type]
        return None if message is None else unpack_bytes(message)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The states of many keys in their order, in one round trip."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(entity_key(self._join_key, key), self._field)  # type: ignore[arg-type]
            messages = await pipe.execute()
        return [None if message is None else unpack_bytes(message) for message in messages]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class OnlineUsers(OnlineStates):
    """The states of users."""

    def __init__(self, settings: Settings, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(settings, user, timeout_s)


class OnlineItems(OnlineStates):
    """The states of items, for audits: serving keeps all of them in memory."""

    def __init__(self, settings: Settings, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(settings, item, timeout_s)

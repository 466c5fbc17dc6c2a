"""Reads users from the online store for answering: one round trip each, and no waiting for a store that is away.

The bytes and their place are left to `feature_repo.online`; what an answer does without them, to `bentos.answering`.
"""

import logging
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_repo.features import user as user_profile
from feature_repo.layout import PROJECT, entity_key
from feature_repo.online import OnlineUsers
from freshet.settings import Settings

BUDGET_S = 0.1
"""A read takes 0.3 ms, and tens of them while Redis forks or syncs. Beyond this the person waits longer than what is
known of them is worth."""
FAILURES, PAUSE_S = 3, 1.0
"""After so many failures in a row nobody asks for a second: a store that hangs costs each answer the whole budget."""
SCAN_KEYS, SCAN_ROUNDS = 500, 40
"""A search looks at 20,000 keys at most (10 ms), in steps that do not hold Redis up."""

_BEFORE = entity_key(user_profile.key, "")[: -len(PROJECT) - 4]
"""What the keys of all users begin with; four bytes of length, the id and the project follow."""

log = logging.getLogger(__name__)


class Unavailable(RuntimeError):
    """The online store does not answer."""


class Users:
    """The online store's users. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Connects on the first read."""
        self._where = settings.redis_url.rpartition("@")[2]
        self._online = OnlineUsers(settings, BUDGET_S)
        self._client = Redis.from_url(settings.redis_url, socket_timeout=1, socket_connect_timeout=BUDGET_S)
        self._failed = 0
        self._again = 0.0

    async def get(self, user_id: str) -> bytes | None:
        """A user's row, None when never seen. Raises `Unavailable`."""
        if self._failed >= FAILURES and monotonic() < self._again:
            raise Unavailable(f"the online store at {self._where} did not answer lately")
        try:
            row = await self._online.get(user_id)
        except (RedisError, OSError, ValueError) as error:
            self._failed += 1
            self._again = monotonic() + PAUSE_S
            if self._failed == FAILURES:
                log.error("the online store at %s does not answer, users are as new ones: %r", self._where, error)
            raise Unavailable(f"the online store at {self._where} does not answer: {error!r}") from error
        if self._failed >= FAILURES:
            log.warning("the online store at %s answers again", self._where)
        self._failed = 0
        return row

    async def search(self, text: str, most: int) -> list[str]:
        """Ids that contain `text`, in order; of a large store, those among the first keys. Raises `Unavailable`."""
        pattern = b"%s????*%s*%s" % (_plain(_BEFORE), _plain(text.encode()), PROJECT.encode())
        found: set[str] = set()
        cursor = 0
        try:
            for _ in range(SCAN_ROUNDS):
                cursor, keys = await self._client.scan(cursor, pattern, SCAN_KEYS)
                found.update(key[len(_BEFORE) + 4 : -len(PROJECT)].decode() for key in keys)
                if cursor == 0 or len(found) >= most:
                    break
        except (RedisError, OSError) as error:
            raise Unavailable(f"the online store at {self._where} does not answer: {error!r}") from error
        return sorted(found)[:most]

    async def close(self) -> None:
        """Close the connections."""
        await self._online.close()
        await self._client.aclose()


def _plain(text: bytes) -> bytes:
    """Redis' pattern that matches just this."""
    return b"".join(b"\\" + bytes((c,)) if c in b"*?[]^-\\" else bytes((c,)) for c in text)

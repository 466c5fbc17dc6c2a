"""Reading users for an answer: a store that is away or hangs costs little, and ids are found by a part of them."""

import asyncio
import socket
from time import monotonic

import pytest
from redis.asyncio import Redis

from bentos import users
from bentos.users import Unavailable, Users
from feature_repo.features import user as profile
from feature_repo.layout import entity_key, pack_bytes, state_field
from freshet.settings import Settings


async def store(settings: Settings, *ids: str) -> None:
    async with Redis.from_url(settings.redis_url) as client:
        for user_id in ids:
            row = pack_bytes(b"row of " + user_id.encode())
            await client.hset(entity_key("user_id", user_id), state_field("user"), row)
        await client.hset(entity_key("item_id", "ada's book"), b"x", b"y")


@pytest.mark.redis
@pytest.mark.kafka
async def test_ids_are_found_by_any_part_of_them(settings: Settings) -> None:
    await store(settings, "ada", "adam", "eve", "x*y", "žofie")
    found = Users(settings)
    assert await found.get("ada") == b"row of ada"
    assert await found.get("nobody") is None
    assert await found.search("", 10) == ["ada", "adam", "eve", "x*y", "žofie"]
    assert await found.search("da", 10) == ["ada", "adam"]
    assert len(await found.search("", 2)) == 2
    assert await found.search("*", 10) == ["x*y"]
    assert await found.search("ž", 10) == ["žofie"]
    assert await found.search("user_id", 10) == []
    await found.close()


async def test_a_store_that_hangs_is_not_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "PAUSE_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        found = Users(Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        for _ in range(users.FAILURES):
            with pytest.raises(Unavailable, match="does not answer"):
                await found.get("ada")
        start = monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable, match="did not answer lately"):
                await found.get("ada")
        assert monotonic() - start < users.BUDGET_S * 10  # a hundred budgets would be ten seconds
        await found.close()


@pytest.mark.redis
@pytest.mark.kafka
async def test_a_store_that_is_back_is_asked_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(settings, "ada")
    monkeypatch.setattr(users, "PAUSE_S", 0.05)
    found = Users(settings)
    get, away = found._online.get, True

    async def flaky(user_id: str) -> bytes | None:
        if away:
            raise ConnectionRefusedError(111, "refused")
        return await get(user_id)

    monkeypatch.setattr(found._online, "get", flaky)
    for _ in range(users.FAILURES + 1):
        with pytest.raises(Unavailable):
            await found.get("ada")
    away = False
    await asyncio.sleep(0.1)
    assert await found.get("ada") == b"row of ada"
    await found.close()


def test_what_the_keys_begin_with_is_the_users_entity_only() -> None:
    assert entity_key(profile.key, "ada").startswith(users._BEFORE)
    assert not entity_key("item_id", "ada").startswith(users._BEFORE)

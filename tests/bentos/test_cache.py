"""Kept answers: the same while nothing new is known, and never when they lack something."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from bentos import cache
from bentos.answering import MODEL_MISSING, Answering
from bentos.bundle import Bundle
from feature_repo.features import user as user_profile
from feature_repo.layout import entity_key, pack_bytes, state_field
from freshet.settings import Settings
from tests.bentos.small import NOW, cascade, event, item_matrix

pytestmark = [pytest.mark.redis, pytest.mark.kafka]


async def knows(settings: Settings, user_id: str, *items: str) -> None:
    """Put a user's row into the online store."""
    some = [event(n, user_id, item, "click", NOW - 60_000_000 + n) for n, item in enumerate(items)]
    row = user_profile.advance(None, some, len(items))
    async with Redis.from_url(settings.redis_url) as client:
        await client.hset(entity_key("user_id", user_id), state_field("user"), pack_bytes(row))  # type: ignore[misc, arg-type]


@pytest.fixture
async def answering(settings: Settings) -> AsyncIterator[Answering]:
    """One process that keeps answers for a minute, with a bundle and items, and nothing that follows Kafka."""
    made = Answering(settings.model_copy(update={"cache_ttl_s": 60.0}))
    made.items.matrix, made.items.seen = item_matrix(), True
    made.champion.bundle = Bundle(cascade(), {}, "7")
    yield made
    await made.users.close()
    await made.cache.close()


async def ask(answering: Answering, **changes: Any) -> Any:
    asked = {"user_id": "ada", "k": 5, "context": {}, "exclude": (), "categories": (), "explain": False} | changes
    return await answering.recommend(**asked)


async def test_the_same_question_is_answered_once_while_nothing_new_is_known(
    settings: Settings, answering: Answering
) -> None:
    await knows(settings, "ada", "i3", "i9")
    first, again = await ask(answering), await ask(answering)
    assert (first.cached, again.cached) == (False, True)
    assert first.request_id != again.request_id
    same = {"request_id", "cached", "stages_ms"}
    assert first.model_dump(exclude=same) == again.model_dump(exclude=same)
    logged = [answering.log._queue.get_nowait()[2] for _ in range(2)]
    assert logged[1]["cached"]
    assert logged[0]["item_values"] == logged[1]["item_values"]
    assert logged[0]["tail_exposure"] == logged[1]["tail_exposure"] > 0
    assert [record["request_id"] for record in logged] == [first.request_id, again.request_id]

    for changes in ({"k": 6}, {"exclude": ("i1",)}, {"categories": ("war",)}, {"context": {"arm": "popular"}}):
        assert not (await ask(answering, **changes)).cached, changes
        assert (await ask(answering, **changes)).cached, changes


async def test_a_new_event_a_new_tile_and_a_new_bundle_make_an_answer_stale(
    settings: Settings, answering: Answering
) -> None:
    await knows(settings, "ada", "i3")
    await ask(answering)
    await knows(settings, "ada", "i3", "i9")
    assert not (await ask(answering)).cached
    answering.items.matrix = dataclasses.replace(answering.items.matrix, tile=answering.items.matrix.tile + 1)
    assert not (await ask(answering)).cached
    answering.champion.bundle = Bundle(cascade(), {}, "8")
    assert not (await ask(answering)).cached
    assert (await ask(answering)).cached


async def test_an_answer_that_lacks_something_is_not_kept(answering: Answering) -> None:
    answering.champion.bundle = None
    for _ in range(2):
        answer = await ask(answering)
        assert (answer.cached, answer.fallback) == (False, ["new_user", MODEL_MISSING])


async def test_equal_questions_at_once_are_computed_once(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0
    real = answering._pick

    def counted(*given: Any) -> Any:
        nonlocal computed
        computed += 1
        return real(*given)

    monkeypatch.setattr(answering, "_pick", counted)
    answers = await asyncio.gather(*(ask(answering) for _ in range(20)))
    assert computed == 1
    assert sorted(answer.cached for answer in answers) == [False] + [True] * 19


async def test_all_kept_answers_can_be_forgotten(settings: Settings, answering: Answering) -> None:
    for name in ("ada", "bob", "eve"):
        await ask(answering, user_id=name)
    await knows(settings, "ada", "i3")
    assert await answering.cache.clear() == 3
    assert not (await ask(answering, user_id="bob")).cached
    async with Redis.from_url(settings.redis_url) as client:
        assert await client.exists(entity_key("user_id", "ada")), "only kept answers go"


async def test_a_store_that_does_not_answer_costs_only_the_work(settings: Settings) -> None:
    away = Answering(settings.model_copy(update={"cache_ttl_s": 60.0, "redis_url": "redis://127.0.0.1:1/0"}))
    away.items.matrix, away.items.seen = item_matrix(), True
    away.champion.bundle = Bundle(cascade(), {}, "7")
    answer = await ask(away)
    assert (len(answer.items), answer.cached) == (5, False)


async def test_what_is_kept_and_cannot_be_read_is_a_miss(settings: Settings, answering: Answering) -> None:
    await ask(answering)
    async with Redis.from_url(settings.redis_url) as client:
        (key,) = [key async for key in client.scan_iter(cache.PREFIX + b"*")]
        await client.set(key, b"no answer")
    assert not (await ask(answering)).cached
    assert (await ask(answering)).cached

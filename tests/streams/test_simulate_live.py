"""The simulator against real Kafka and a real ingest. The closed loop asks a recommender whose worth is known."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from freshet.settings import Settings
from streams import ingest, simulate
from streams.catalogue import read_catalogue
from streams.simulate import World, WorldSpec
from streams.simulate.shopper import Shopper
from tests.streams.test_ingest import events_in_kafka


@asynccontextmanager
async def serving(app: FastAPI, port: int) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="on"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def recommender(world: World, at: int, fail_every: int = 0) -> FastAPI:
    """Arm `champion` knows every taste, any other shows what is best on average."""
    users = np.arange(world.spec.users)
    chance = world.click_probability(users, np.full(len(users), at), np.full(len(users), -1))
    average = np.argsort(-chance.mean(axis=0))
    app, numbers = FastAPI(), itertools.count()

    @app.post("/recommend")
    async def recommend(body: dict[str, Any]) -> dict[str, Any]:
        number = next(numbers)
        if fail_every and number % fail_every == 0:
            raise ValueError("planted failure")
        if body["context"]["arm"] == "nothing":
            return {"request_id": f"r{number}", "items": [], "fallback": []}
        user = world.user_ids.index(body["user_id"])
        knows = body["context"]["arm"] == "champion"
        order = np.argsort(-chance[user]) if knows else average
        return {
            "request_id": f"r{number}",
            "items": [{"item_id": world.item_ids[n]} for n in order[: body["k"]]],
            "fallback": [],
        }

    return app


async def plant(settings: Settings, events: int = 3_000) -> World:
    await simulate.plant(settings, events=events, users=300, items=200, seed=4)
    return World(WorldSpec.load(settings))


@pytest.mark.kafka
async def test_a_planted_history_is_in_kafka_with_its_catalogue_and_its_spec_is_kept(settings: Settings) -> None:
    world = await plant(settings)
    found = await events_in_kafka(settings)
    assert len(found) == len({e.event_id for e in found}) == len({e.event_time for e in found}) == 3_000
    assert max(e.event_time for e in found) <= world.spec.end
    assert all(e.arrival == e.event_time and e.categories for e in found)
    assert all(("position" in e.properties) == (e.type == "impression") for e in found if e.type != "click")
    assert (await read_catalogue(settings)) == {item.item_id: item for item in world.catalogue}


@pytest.mark.kafka
async def test_the_loop_finds_the_lift_that_is_there(settings: Settings) -> None:
    world = await plant(settings)
    async with (
        serving(ingest.create_app(settings), settings.ingest_port),
        serving(recommender(world, world.spec.end), settings.serve_port),
    ):
        report = await simulate.shop(settings, requests=400, think_s=0.0, seed=2)
        champion, popular = report.arms
        assert champion.requests + popular.requests == 400
        assert champion.shown == 10 * champion.requests
        assert report.lift is not None
        assert report.lift.low > 0  # the oracle is better, and 400 requests are enough to know
        assert report.lift.low < champion.expected_ctr / popular.expected_ctr - 1 < report.lift.high
        assert champion.expected_ctr <= champion.best_ctr
        assert popular.expected_ctr < 0.7 * popular.best_ctr
        assert report.errors == report.refused == 0
        same = await simulate.shop(settings, requests=200, arms=("popular", "also popular"), think_s=0.0, seed=3)
        assert same.lift is not None
        assert same.lift.low < 0 < same.lift.high
    events = [e for e in await events_in_kafka(settings) if e.request_id]
    assert len({e.event_id for e in events}) == len(events)
    assert sum(e.type == "impression" for e in events) == sum(a.shown for a in (*report.arms, *same.arms))
    assert sum(e.type == "click" for e in events) == sum(a.clicks for a in (*report.arms, *same.arms))
    assert sum(e.type == "purchase" for e in events) == sum(a.purchases for a in (*report.arms, *same.arms))


@pytest.mark.kafka
async def test_failures_are_counted_and_a_loop_without_a_service_ends_with_the_reason(settings: Settings) -> None:
    world = await plant(settings, 500)
    async with serving(ingest.create_app(settings), settings.ingest_port):
        with pytest.raises(ConnectionError, match="/recommend"):
            await simulate.shop(settings, requests=100, think_s=0.0)
        async with serving(recommender(world, world.spec.end, fail_every=10), settings.serve_port):
            report = await simulate.shop(settings, requests=100, think_s=0.0)
            with pytest.raises(ConnectionError, match="had nothing"):
                await simulate.shop(settings, requests=100, arms=("nothing",), think_s=0.0)
    assert report.errors == 10
    assert "500" in (report.last_error or "")
    assert sum(arm.requests for arm in report.arms) == 90


@pytest.mark.kafka
async def test_a_live_stream_arrives_through_ingest_and_a_shift_puts_the_reserve_on_sale(settings: Settings) -> None:
    world = await plant(settings, 500)
    async with serving(ingest.create_app(settings), settings.ingest_port):
        calm = await simulate.flow(settings, rate=400, seconds=1.5, seed=1)
        assert (calm.events, calm.refused, calm.errors) == (600, 0, 0)
        assert calm.seconds >= 1.2
        assert not WorldSpec.load(settings).shift_at
        changed = await simulate.flow(settings, rate=400, seconds=1.0, seed=2, shift=True)
        assert changed.refused == 0
    sent = [e for e in await events_in_kafka(settings) if e.session_id and e.session_id.startswith("live")]
    assert len(sent) == len({e.event_id for e in sent}) == 1_000
    reserve = set(world.item_ids[200:])
    before = [e for e in sent if e.event_id.rsplit("-", 1)[0] == sent_mark(sent, 1)]
    after = [e for e in sent if e.event_id.rsplit("-", 1)[0] == sent_mark(sent, 2)]
    assert not reserve & {e.item_id for e in before}
    assert reserve & {e.item_id for e in after}
    assert reserve <= (await read_catalogue(settings)).keys()
    assert WorldSpec.load(settings).shift_at


def sent_mark(sent: list[Any], seed: int) -> str:
    return next(e.event_id.rsplit("-", 1)[0] for e in sent if e.event_id.startswith(f"live-{seed}-"))


async def test_a_live_stream_without_ingest_ends_with_the_reason(settings: Settings) -> None:
    world = await plant(settings, 500)
    with pytest.raises(ConnectionError, match="/events"):
        await simulate.flow(settings, rate=50, seconds=1, world=world)


def test_a_user_acts_the_same_on_the_same_list_whatever_others_do() -> None:
    spec = WorldSpec(seed=1, users=50, items=60, start=0, end=30 * 86_400_000_000)
    world = World(spec)
    lists = [world.item_ids[:10], world.item_ids[10:20]]

    def acted(user: int) -> list[int]:
        shopper = Shopper(world, user, spec.end, "s", (1, user))
        return [len(shopper.respond(shown, "r").events) for shown in lists]

    assert [acted(user) for user in range(20)] == [acted(user) for user in reversed(range(20))][::-1]

"""Ingest against a real broker: what a client is told, and what is then in Kafka."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr

from freshet.settings import Settings
from freshet.stack.ports import choose
from streams import ingest
from streams.events import Event, decode
from streams.openapi import BATCH_EXAMPLE, EVENT_EXAMPLE, ITEM_EXAMPLE

GOOD = {"user_id": "u", "item_id": "i", "type": "click"}
Client = httpx.AsyncClient


@asynccontextmanager
async def client_of(settings: Settings, **headers: str) -> AsyncIterator[Client]:
    app = ingest.create_app(settings)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://ingest", headers=headers, timeout=30) as client,
    ):
        yield client


async def events_in_kafka(settings: Settings) -> list[Event]:
    consumer = AIOKafkaConsumer(
        settings.topic("events"),
        bootstrap_servers=settings.kafka,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found = []
        while len(found) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [(record.key, decode(record.value)) for record in records]
    finally:
        await consumer.stop()
    assert all(key == event.user_id.encode() for key, event in found)
    return [event for _, event in found]


@pytest.mark.kafka
async def test_events_go_in_and_bad_ones_are_refused_by_index(settings: Settings) -> None:
    async with client_of(settings) as client:
        one = await client.post("/events", json=GOOD | {"event_id": "a"})
        assert (one.status_code, one.json()) == (202, {"accepted": 1, "refused": []})
        many = await client.post("/events", json=[GOOD | {"event_id": "b"}, {"type": "click"}, GOOD])
        assert many.status_code == 202
        assert many.json()["accepted"] == 2
        assert [r["index"] for r in many.json()["refused"]] == [1]
        [generated] = many.json()["generated"]
        assert generated["index"] == 2
        lines = await client.post(
            "/events",
            content=b'{"user_id":"v","item_id":"i","type":"view","event_id":"c"}\nnot json\n',
            headers={"content-type": "application/x-ndjson"},
        )
        assert (lines.status_code, lines.json()["accepted"], lines.json()["refused"][0]["index"]) == (202, 1, 1)
        none = await client.post("/events", json=[{"type": "click"}, 3])
        assert (none.status_code, len(none.json()["refused"])) == (422, 2)
        metrics = (await client.get("/metrics")).text
    assert {e.event_id for e in await events_in_kafka(settings)} == {"a", "b", "c", generated["event_id"]}
    assert 'freshet_ingest_accepted_total{kind="event"} 4.0' in metrics
    assert 'freshet_ingest_refused_total{kind="event",reason="user_id"} 2.0' in metrics


@pytest.mark.kafka
async def test_a_large_batch_arrives_whole_and_in_order(settings: Settings) -> None:
    batch = [{"event_id": f"e{n}", "user_id": f"u{n % 7}", "item_id": f"i{n}", "type": "view"} for n in range(10_000)]
    async with client_of(settings) as client:
        assert (await client.post("/events", json=batch)).json()["accepted"] == 10_000
    by_user: dict[str, list[int]] = {}
    for event in await events_in_kafka(settings):
        by_user.setdefault(event.user_id, []).append(int(event.event_id[1:]))
    assert by_user == {f"u{u}": list(range(u, 10_000, 7)) for u in range(7)}


@pytest.mark.kafka
async def test_items_fill_in_what_an_event_does_not_say(settings: Settings) -> None:
    async with client_of(settings) as client:
        answer = await client.post("/items", json=[ITEM_EXAMPLE, {"item_id": "x"}])
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        assert answer.json()["refused"][0]["item_id"] == "x"
        found = await client.get("/items/moby-dick")
        assert found.json()["title"] == "Moby-Dick"
        assert found.json()["created_at"] < 0
        assert (await client.get("/items/nothing")).status_code == 404
        await client.post("/events", json=GOOD | {"item_id": "moby-dick"})
    async with client_of(settings) as other:  # another process learns of the item from the topic
        async with asyncio.timeout(20):
            while (await other.get("/items/moby-dick")).status_code != 200:  # noqa: ASYNC110  (what another process sees)
                await asyncio.sleep(0.05)
        await other.post("/events", json=GOOD | {"item_id": "moby-dick"})
    assert [event.categories for event in await events_in_kafka(settings)] == [("Adventure", "Classics")] * 2


@pytest.mark.kafka
async def test_examples_of_the_openapi_page_are_taken(settings: Settings) -> None:
    async with client_of(settings) as client:
        schema = (await client.get("/openapi.json")).json()
        content = schema["paths"]["/events"]["post"]["requestBody"]["content"]
        assert content["application/json"]["examples"]["batch"]["value"] == BATCH_EXAMPLE
        for body in (EVENT_EXAMPLE, BATCH_EXAMPLE):
            assert (await client.post("/events", json=body)).json()["refused"] == []
        lines = content["application/x-ndjson"]["examples"]["lines"]["value"]
        answer = await client.post("/events", content=lines, headers={"content-type": "application/x-ndjson"})
        assert answer.json()["accepted"] == len(BATCH_EXAMPLE)
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/healthz")).json()["status"] == "up"


@pytest.mark.kafka
async def test_the_key_is_asked_for_where_there_is_one(settings: Settings) -> None:
    locked = settings.model_copy(update={"api_key": SecretStr("s3cret")})
    async with client_of(locked) as client:
        assert (await client.post("/events", json=GOOD)).status_code == 401
        assert (await client.post("/items", json=ITEM_EXAMPLE, headers={"x-api-key": "wrong"})).status_code == 401
        assert (await client.post("/events", json=GOOD, headers={"x-api-key": "s3cret"})).status_code == 202


async def test_without_a_broker_the_client_is_told_to_come_back(tmp_path: Any) -> None:
    lonely = Settings(home=tmp_path, kafka=f"127.0.0.1:{choose(39_092)}")
    async with client_of(lonely) as client:
        answer = await client.post("/events", json=GOOD)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/healthz")).status_code == 503


async def test_bodies_and_batches_have_bounds(tmp_path: Any) -> None:
    lonely = Settings(home=tmp_path, kafka=f"127.0.0.1:{choose(39_092)}", max_batch_events=3)
    async with client_of(lonely, **{"content-type": "application/json"}) as client:
        assert (await client.post("/events", content=b"[1,2,3,4]")).status_code == 413
        assert (await client.post("/events", content=b" " * (ingest.BODY_BYTES + 1))).status_code == 413

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(ingest.BODY_BYTES // 65_536 + 2):
                yield b" " * 65_536

        assert (await client.post("/events", content=endless())).status_code == 413


async def test_other_origins_are_not_let_in(tmp_path: Any) -> None:
    async with client_of(Settings(home=tmp_path)) as client:
        answer = await client.options(
            "/events", headers={"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
        )
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.kafka
async def test_the_first_event_after_a_restart_has_its_categories_too(settings: Settings) -> None:
    async with client_of(settings) as client:
        await client.post("/items", json=[ITEM_EXAMPLE | {"item_id": f"i{n}"} for n in range(2_000)])
    async with client_of(settings) as client:
        assert (await client.post("/events", json=GOOD | {"item_id": "i1999"})).status_code == 202
    assert [event.categories for event in await events_in_kafka(settings)] == [("Adventure", "Classics")]

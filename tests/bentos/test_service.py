"""The service as it runs: its fallbacks, its bounds, the key, what it logs."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from freshet.settings import Settings
from streams.catalogue import Item, send_items
from streams.publisher import Publisher
from tests.bentos.running import free_port, recommend, serve

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
async def stocked(settings: Settings) -> Settings:
    """A catalogue of thirty items, and no event yet."""
    async with Publisher(settings) as publisher:
        await send_items(
            publisher, [Item(f"i{n}", f"Item {n}", ("even",) if n % 2 == 0 else ("odd",)) for n in range(30)]
        )
    return settings


@pytest.fixture
def service(stocked: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    """The service beside a catalogue, without a bundle."""
    yield from serve(stocked, tmp_path)


def test_without_a_bundle_the_answer_is_useful_and_says_so(service: httpx.Client) -> None:
    answer = recommend(service, user_id="ada", k=5, explain=True)
    assert answer["fallback"] == ["new_user", "model_missing", "no_item_features"]
    assert len(answer["items"]) == 5
    assert all(item["title"].startswith("Item ") for item in answer["items"])
    assert answer["user_version"] == -1

    some = [item["item_id"] for item in answer["items"][:2]]
    without = recommend(service, user_id="ada", k=30, exclude=[*some, "never heard of"])
    assert not {item["item_id"] for item in without["items"]} & set(some)

    odd = recommend(service, user_id="ada", k=30, categories=["odd"])
    assert len(odd["items"]) == 15
    assert {tuple(item["categories"]) for item in odd["items"]} == {("odd",)}

    assert recommend(service, user_id="ada", categories=["no such thing"])["items"] == []

    similar = service.post("/similar", json={"item_id": "i2", "k": 3}).json()
    assert {tuple(item["categories"]) for item in similar["items"]} == {("even",)}
    assert "i2" not in {item["item_id"] for item in similar["items"]}
    assert service.post("/similar", json={"item_id": "nope"}).json()["fallback"] == ["unknown_item"]
    trending = service.post("/trending", json={"k": 4}).json()
    assert (len(trending["items"]), trending["fallback"]) == (4, ["no_item_features"])

    batch = service.post("/recommend/batch", json={"user_ids": ["ada", "bob"], "k": 3}).json()
    assert [(answer["user_id"], len(answer["items"])) for answer in batch] == [("ada", 3), ("bob", 3)]
    assert service.post("/recommend/batch", json={"user_ids": ["u"] * 101}).status_code == 400
    assert service.post("/cache/clear", json={}).json() == {"cleared": 0}

    for body in (
        {"user_id": ""},
        {"user_id": "x" * 257},
        {"user_id": "ada", "k": 0},
        {"user_id": "ada", "k": 101},
        {"user_id": "ada", "exclude": ["x"] * 1_001},
        {"user_id": "ada", "context": {"arm": "x" * 33}},
        {"k": 3},
    ):
        assert service.post("/recommend", json=body).status_code == 400, body
    halved = service.post("/recommend", content=b'{"user_id": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert halved.status_code == 400
    too_large = service.post("/recommend", content=b" " * 600_000, headers={"Content-Type": "application/json"})
    assert too_large.status_code == 413
    assert service.get("/no/such/page").status_code == 404

    assert service.get("/livez").status_code == 200
    metrics = service.get("/metrics").text
    assert 'freshet_serve_fallbacks_total{name="model_missing"}' in metrics
    assert 'path="other",status="404"' in metrics
    assert "/no/such/page" not in metrics
    assert service.get("/docs").status_code == 200
    page = service.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert service.get("/console/app.js").status_code == 200
    assert service.get("/console/../service.py").status_code == 404
    line = service.get("/api/line").json()
    assert (line["items"], line["bundle"], line["events_per_s"]) == (30, None, None)
    assert service.get("/api/item?id=i3").json()["item"]["title"] == "Item 3"
    assert service.get("/api/item?id=nope").status_code == 404
    assert "Item 3" in service.get("/api/cover?id=i3").text
    assert service.get("/api/users").json() == {"users": []}
    assert service.get("/api/user?id=ada").json()["missing"] == ["new_user"]
    assert service.get("/api/user").status_code == 400
    assert service.post("/api/events", json={}).status_code == 503  # ingest does not run here


def test_what_was_served_is_logged_with_its_values(service: httpx.Client, stocked: Settings) -> None:
    from confluent_kafka import Consumer, TopicPartition

    answer = recommend(service, user_id="ada", k=3)
    topic = stocked.topic("responses")
    consumer = Consumer({"bootstrap.servers": stocked.kafka, "group.id": topic, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(stocked.partitions)])
        record = consumer.poll(20)
        assert record is not None
        logged = json.loads(record.value())
    finally:
        consumer.close()
    assert record.key() == b"ada"
    assert logged["request_id"] == answer["request_id"]
    assert [i["item_id"] for i in logged["items"]] == [i["item_id"] for i in answer["items"]]
    assert logged["item_values"].keys() == {i["item_id"] for i in answer["items"]}
    assert logged["user_values"]["events_ever"] == 0


def test_with_redis_down_everyone_is_a_new_user(stocked: Settings, tmp_path: Path) -> None:
    for client in serve(stocked, tmp_path, FRESHET_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0"):
        answer = recommend(client, user_id="ada", k=5)
        assert answer["fallback"] == ["features_unavailable", "model_missing", "no_item_features"]
        assert len(answer["items"]) == 5


def test_a_key_is_asked_for_where_one_is_set(stocked: Settings, tmp_path: Path) -> None:
    for client in serve(stocked, tmp_path, FRESHET_API_KEY="open sesame"):
        assert client.post("/recommend", json={"user_id": "ada"}).status_code == 401
        assert client.post("/recommend", json={"user_id": "ada"}, headers={"X-Api-Key": "wrong"}).status_code == 401
        assert (
            client.post("/recommend", json={"user_id": "ada"}, headers={"X-Api-Key": "open sesame"}).status_code == 200
        )
        assert client.get("/livez").status_code == 200
        assert client.get("/").status_code == 200  # the page that asks for it
        assert client.get("/api/line").status_code == 401
        assert client.post("/api/session", json={"key": "wrong"}).status_code == 401
        assert client.post("/api/session", json={"key": "open sesame"}).status_code == 204
        assert client.get("/api/line").status_code == 200  # by the cookie
        assert "open sesame" not in str(client.cookies)


async def test_nothing_known_at_all_is_an_empty_list_that_says_so(settings: Settings, tmp_path: Path) -> None:
    for client in serve(settings, tmp_path):
        assert recommend(client, user_id="ada")["fallback"] == ["new_user", "no_items"]
        assert client.post("/trending", json={}).json() == {"items": [], "fallback": ["no_items"]}
        assert client.post("/similar", json={"item_id": "i1"}).json()["fallback"] == ["unknown_item"]

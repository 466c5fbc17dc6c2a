"""The catalogue against a real broker, its file formats, and what is no item."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freshet.settings import Settings
from streams import catalogue
from streams.catalogue import BadItem, Catalogue, Item, accept, import_file, read_catalogue, read_items, record
from streams.publisher import Publisher, PublishError

LAMP, CHAIR = Item("lamp", "A lamp", ("Light",)), Item("chair", "A chair", ("Wood", "Seats"), created_at=1_000_000)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  (the catalogue changes by itself)
            await asyncio.sleep(0.02)


@pytest.mark.kafka
async def test_it_follows_the_topic_through_changes_removals_and_records_that_are_no_items(settings: Settings) -> None:
    async with Publisher(settings) as publisher, Catalogue(settings) as items:
        async with asyncio.timeout(20):
            await items.ready.wait()  # an empty topic has been read at once
        assert len(items) == 0
        await publisher.send("items", [record(LAMP), record(CHAIR), (b"odd", b"no item"), (b"odd", b'{"item_id":7}')])
        await until(lambda: len(items) == 2)
        assert items.get("lamp") == LAMP
        assert (items.categories("chair"), items.categories("nothing")) == (("Wood", "Seats"), ())
        assert items.titles() == {"lamp": "A lamp", "chair": "A chair"}
        before = items.version
        await publisher.send("items", [record(Item("lamp", "A better lamp"))])
        await until(lambda: items.version > before)
        assert items.titles()["lamp"] == "A better lamp"
        await publisher.send("items", [(b"chair", None)])  # type: ignore[list-item]  # a tombstone, as other tools write it
        await until(lambda: len(items) == 1)
    assert (await read_catalogue(settings)).keys() == {"lamp"}


@pytest.mark.kafka
async def test_it_waits_for_a_topic_that_does_not_exist_yet(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streams.topics import create_topics

    monkeypatch.setattr(catalogue, "RETRY_S", 0.1)
    later = settings.model_copy(update={"topic_prefix": settings.topic_prefix + "later-"})
    async with Catalogue(later) as items:
        await asyncio.sleep(0.5)
        assert not items.ready.is_set()
        await create_topics(later)
        async with asyncio.timeout(30):
            await items.ready.wait()


@pytest.mark.kafka
@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
async def test_files_are_imported(settings: Settings, tmp_path: Path, name: str) -> None:
    csv = "item_id,title,categories,created_at\nlamp,A lamp,Light,\nchair,A chair,Wood|Seats,1970-01-01T00:00:01Z\n"
    lines = (
        '{"item_id":"lamp","title":"A lamp","categories":["Light"]}\n\n'
        '{"item_id":"chair","title":"A chair","categories":["Wood","Seats"],"created_at":1}\n'
    )
    (tmp_path / name).write_text(csv if name.endswith("csv") else lines)
    assert list(read_items(tmp_path / name)) == [LAMP, CHAIR]
    assert await import_file(settings, tmp_path / name) == 2
    assert await read_catalogue(settings) == {"lamp": LAMP, "chair": CHAIR}


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").write_text('{"item_id":"a","title":"A"}\n{"item_id":"b"}\n')
    with pytest.raises(BadItem, match=r"line 2: .*title"):
        list(read_items(tmp_path / "i.jsonl"))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"item_id": "a"}, "title"),
        ({"item_id": "", "title": "A"}, "item_id"),
        ({"item_id": "a\n", "title": "A"}, "item_id"),
        ({"item_id": "a", "title": ""}, "title"),
        ({"item_id": "a", "title": "A", "colour": 1}, "unknown field 'colour'"),
        ({"item_id": "a", "title": "A", "categories": ["x"] * 33}, "categories"),
        ({"item_id": "a", "title": "A", "image": "x" * 20_000}, "image"),
        ({"item_id": "a", "title": "A", "created_at": "yesterday"}, "created_at 'yesterday'"),
    ],
)
def test_a_bad_item_is_refused_with_the_field(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(BadItem, match=said):
        accept(raw)


@pytest.mark.kafka
async def test_a_record_that_kafka_refuses_does_not_spoil_the_next(settings: Settings) -> None:
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishError):
            await publisher.send("items", [(b"big", b"x" * 3_000_000)])
        await publisher.send("items", [record(LAMP)])
        with pytest.raises(PublishError):
            await publisher.send("items", [(b"big", b"x" * 3_000_000)] * 40)  # as a batch of its own
        await publisher.send("items", [record(CHAIR)])
    assert await read_catalogue(settings) == {"lamp": LAMP, "chair": CHAIR}


@pytest.mark.kafka
async def test_many_senders_at_once_lose_nothing(settings: Settings) -> None:
    async with Publisher(settings) as publisher:

        async def some(n: int) -> None:
            size = 1 if n % 2 else 200
            await publisher.send("items", [record(Item(f"i{n}-{m}", "A thing")) for m in range(size)])

        await asyncio.gather(*(some(n) for n in range(60)))
    assert len(await read_catalogue(settings)) == 30 * 201

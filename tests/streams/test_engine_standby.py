"""A warm standby has what another worker commits; a name is held by one process at a time."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from freshet.settings import Settings
from streams.engine.checkpoint import Checkpoint
from streams.engine.instance import named
from streams.engine.kept import KeptRows, Memory
from streams.engine.restore import Target, restore
from streams.engine.standby import Standby
from streams.topics import EVENTS, USER_FEATURES, partition_of
from tests.streams.folded import fold, history, partitioned, publish


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (what an operator would see)
            await asyncio.sleep(0.05)


async def test_a_partition_that_was_followed_is_restored_from_the_checkpoint_and_the_tail(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = dict[str, int]()
    loaded_to = KeptRows.loaded_to

    def telling(rows: KeptRows, position: int) -> None:
        loaded_to(rows, position)
        reached[rows._checkpoint.folder.name] = position

    monkeypatch.setattr(KeptRows, "loaded_to", telling)
    settings = settings.model_copy(update={"instance": "second", "checkpoint_rows": 10})
    topic, made = settings.topic(USER_FEATURES), fold(settings, partitioned(settings, history(400)))
    expected = dict(made.user_rows)
    await publish(settings, made)
    standby = Standby(settings, EVENTS, topic)
    await standby.start(range(settings.partitions))
    await until(lambda: standby.lags == dict.fromkeys(range(settings.partitions), 0))
    late = next(iter(expected))
    partition = partition_of(late, settings.partitions)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        sent = await producer.send_and_wait(topic, expected[late] + b"!", late, partition)  # while it follows
        await until(lambda: reached[f"{topic}-{partition}"] > sent.offset)
        await standby.stop()
        await producer.send_and_wait(topic, expected[late], late, partition)  # after it stopped
    assert standby.lags == {}

    kept = {p: KeptRows(Checkpoint.of(settings, topic, p), Memory(1 << 20), 1_000) for p in range(settings.partitions)}
    assert await restore(settings.kafka, topic, {p: Target(rows) for p, rows in kept.items()}) == 1
    assert sum(map(len, kept.values())) == len(expected)
    assert {key: kept[partition_of(key, settings.partitions)].get(key) for key in expected} == expected
    for rows in kept.values():
        rows.close()


async def test_what_is_due_is_rewritten_by_a_standby_and_not_by_a_restore(settings: Settings) -> None:
    """Events wait for a restore."""
    settings = settings.model_copy(update={"instance": "second", "checkpoint_rows": 10})
    topic = settings.topic(USER_FEATURES)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for _ in range(100):
            sent = await producer.send_and_wait(topic, b"row", b"u0", 0)
    rows = KeptRows(Checkpoint.of(settings, topic, 0), Memory(1 << 20), settings.checkpoint_rows)
    assert await restore(settings.kafka, topic, {0: Target(rows)}) == 100
    assert (rows.due, rows.position) == (True, sent.offset + 1)
    rows.close()

    standby = Standby(settings, EVENTS, topic)
    await standby.start([0])
    await until(lambda: standby.lags == {0: 0})
    await standby.stop()
    checkpoint = Checkpoint.of(settings, topic, 0)
    assert (checkpoint.records, checkpoint.position) == (1, sent.offset + 1)
    checkpoint.close()


async def test_a_standby_that_cannot_write_leaves(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.model_copy(update={"instance": "second", "checkpoint_rows": 1})
    told = list[str]()
    monkeypatch.setattr("streams.engine.standby.leave", lambda what, todo, error: told.append(f"{what}: {error}"))

    def full(*_: object) -> None:
        raise OSError("no room")

    await publish(settings, fold(settings, partitioned(settings, history(100))))
    with monkeypatch.context() as patched:
        patched.setattr("streams.engine.kept.KeptRows.loaded_to", full)
        standby = Standby(settings, EVENTS, settings.topic(USER_FEATURES))
        await standby.start([0, 1])
        await until(lambda: bool(told))
    assert told == ["events: the standby of partitions [0, 1] failed: no room"]
    await standby.stop()


def test_workers_of_one_home_have_different_names_and_a_dead_ones_is_free_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    mine = {named(settings).instance for _ in range(2)}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.write(writer, named(settings).instance.encode())
        os._exit(0)
    os.waitpid(child, 0)
    died = os.read(reader, 99).decode()
    assert len(mine | {died}) == 3
    assert named(settings).instance == died
    assert named(Settings(home=tmp_path / "other")).instance not in mine, "nor on another machine"
    os.close(reader), os.close(writer)
    given = Settings(home=tmp_path, instance="mine")
    assert named(given) is given

"""A warm standby has what another worker commits; a name is held by one process at a time."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import ValidationError

from freshet.settings import Settings
from streams.engine.checkpoint import Checkpoint
from streams.engine.fold import UserFold
from streams.engine.instance import named
from streams.engine.restore import restore
from streams.engine.rows import Memory, Rows
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
    loaded_to = Rows.loaded_to

    async def telling(rows: Rows, position: int) -> None:
        await loaded_to(rows, position)
        reached[rows._checkpoint.folder.name] = position  # type: ignore[union-attr]

    monkeypatch.setattr(Rows, "loaded_to", telling)
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

    folds = {p: UserFold.of(settings, p) for p in range(settings.partitions)}
    for p, mine in folds.items():
        checkpoint = Checkpoint.of(settings, topic, p)
        assert checkpoint is not None
        mine.rows = Rows(checkpoint, Memory(1 << 20), 1_000)
    assert await restore(settings.kafka, topic, folds) == 1
    assert sum(len(mine.rows) for mine in folds.values()) == len(expected)
    assert {key: folds[partition_of(key, settings.partitions)].rows.get(key) for key in expected} == expected
    for mine in folds.values():
        mine.rows.close()


async def test_a_standby_that_cannot_write_leaves(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.model_copy(update={"instance": "second", "checkpoint_rows": 1})
    told = list[str]()
    monkeypatch.setattr("streams.engine.standby.leave", lambda what, todo, error: told.append(f"{what}: {error}"))

    def full(*_: object) -> None:
        raise OSError("no room")

    await publish(settings, fold(settings, partitioned(settings, history(100))))
    with monkeypatch.context() as patched:
        patched.setattr("streams.engine.rows.Rows.loaded_to", full)
        standby = Standby(settings, EVENTS, settings.topic(USER_FEATURES))
        await standby.start([0, 1])
        await until(lambda: bool(told))
    assert told == ["events: the standby of partitions [0, 1] failed: no room"]
    await standby.stop()


def test_a_standby_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="set FRESHET_INSTANCE"):
        Settings(home=tmp_path, standby=True)
    assert Settings(home=tmp_path, standby=True, instance="w").standby


def test_workers_of_one_home_have_different_names_and_a_dead_ones_is_free_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, instance="auto")
    assert [named(settings).instance for _ in range(2)] == ["worker-0", "worker-1"]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.write(writer, str(named(settings).instance).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 99) == b"worker-2"
    assert named(settings).instance == "worker-2"
    os.close(reader), os.close(writer)
    given = Settings(home=tmp_path, instance="mine")
    assert named(given) is given

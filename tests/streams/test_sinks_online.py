"""The online sink against a real Kafka and a Redis of its own that is flushed, killed and loses its tail."""

import asyncio
import logging
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis import Redis as Client
from redis.exceptions import ConnectionError as RedisConnectionError

from feature_repo.layout import VIEWS, entity_key, rank_field
from feature_repo.online import OnlineItems, OnlineUsers
from freshet.settings import Settings
from freshet.stack import redis as redis_node
from freshet.stack.ports import choose
from streams.profiles import header
from streams.sinks.online import Lost, OnlineSink
from tests.streams.folded import Folded, fold, history, partitioned, publish

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
WAIT_S = 60


class OwnRedis:
    """A Redis that a test may kill. It keeps an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = choose(25_000), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """And wait until it answers."""
        self._process = subprocess.Popen(redis_node.prepare(self._folder, port=self.port), stdout=subprocess.DEVNULL)
        with Client.from_url(self.url) as client:
            for _ in range(200):
                try:
                    client.ping()
                    return
                except RedisConnectionError:
                    import time

                    time.sleep(0.05)
        pytest.fail("Redis did not start")

    def kill(self) -> None:
        """With SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def _own_redis(folder: Path) -> Iterator[OwnRedis]:
    made = OwnRedis(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    with _own_redis(tmp_path / "redis") as made:
        yield made


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A sink that runs for as long as the block; its error is raised at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(OnlineSink(settings).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, WAIT_S)


async def until(what: Callable[[], bool], task: "asyncio.Task[None]") -> None:
    for _ in range(WAIT_S * 20):
        if task.done():
            await task
            pytest.fail("the sink ended")
        if await asyncio.to_thread(what):
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not come to this")


def has_all(settings: Settings, made: Folded) -> Callable[[], bool]:
    """Whether Redis has exactly the newest row of each key, with its rank."""
    newest = {
        **{(VIEWS["user"], entity_key("user_id", k.decode())): header(v) for k, v in made.user_rows},
        **{(VIEWS["item"], entity_key("item_id", k.decode())): header(v) for k, v in made.item_rows},
    }

    def check() -> bool:
        with Client.from_url(settings.redis_url) as client:
            try:
                for (view, key), head in newest.items():
                    assert head is not None
                    rank = client.hget(key, rank_field(view))  # type: ignore[arg-type]
                    if rank is None or int.from_bytes(rank[:8], "big") != head.version + 1:  # type: ignore[index, arg-type]
                        return False
            except RedisConnectionError:
                return False
        return True

    return check


async def test_the_newest_rows_arrive_and_a_flushed_redis_is_filled_again(settings: Settings) -> None:
    made = fold(settings, partitioned(settings, history(600)))
    async with running(settings) as sink:
        await publish(settings, made)
        await until(has_all(settings, made), sink)
        online, items = OnlineUsers(settings, timeout_s=10), OnlineItems(settings, timeout_s=10)
        newest = {key.decode(): row for key, row in made.user_rows}
        assert await online.get_many([*newest, "nobody"]) == [*newest.values(), None]
        assert [await online.get(key) for key in newest] == list(newest.values())
        assert await items.get(made.item_rows[-1][0].decode()) == made.item_rows[-1][1]
        await online.close()
        await items.close()
        with Client.from_url(settings.redis_url) as client:
            assert not client.exists(entity_key("user_id", "\0meta"))
            client.flushall()
        await until(has_all(settings, made), sink)


async def test_a_sink_takes_up_at_the_progress_in_redis(settings: Settings) -> None:
    made = fold(settings, partitioned(settings, history(300)))
    half = Folded(made.user_rows[: len(made.user_rows) // 2], [])
    async with running(settings) as sink:
        await publish(settings, half)
        await until(has_all(settings, half), sink)
    with Client.from_url(settings.redis_url) as client:
        key = f"freshet:progress:{settings.topic('user-features')}"
        place = client.hgetall(key)
        assert sum(map(int, place.values())) == len(half.user_rows) + 1  # type: ignore[union-attr]
    rest = Folded(made.user_rows[len(half.user_rows) :], made.item_rows)
    await publish(settings, rest)
    async with running(settings) as sink:
        await until(has_all(settings, made), sink)


async def test_redis_killed_and_back_with_a_lost_tail(
    settings: Settings, own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.model_copy(update={"redis_url": own_redis.url})
    made = fold(settings, partitioned(settings, history(600)))
    half = Folded(made.user_rows[: len(made.user_rows) // 2], made.item_rows[: len(made.item_rows) // 2])
    rest = Folded(made.user_rows[len(half.user_rows) :], made.item_rows[len(half.item_rows) :])
    caplog.set_level(logging.WARNING, "streams.sinks.online")
    async with running(settings) as sink:
        await publish(settings, half)
        await until(has_all(settings, half), sink)
        own_redis.kill()
        await publish(settings, rest)
        await asyncio.sleep(1)
        files = [path for path in own_redis.folder.rglob("*.aof") if path.stat().st_size > 0]
        assert files, "this Redis keeps an append-only file"
        for path in files:  # a machine that lost power keeps a beginning of the file
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
        await asyncio.to_thread(own_redis.start)
        await until(has_all(settings, made), sink)
    said = [r.message for r in caplog.records if "does not take rows" in r.message]
    assert len(said) == 1, "an outage is said once"


async def test_a_topic_that_was_made_anew_is_not_passed_over(settings: Settings) -> None:
    with Client.from_url(settings.redis_url) as client:
        client.hset(f"freshet:progress:{settings.topic('user-features')}", "0", "1000")
    with pytest.raises(Lost, match=r"ends at 0: the topic was made anew.*flushdb"):
        await OnlineSink(settings).run(asyncio.Event())

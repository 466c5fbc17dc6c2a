"""What tests of every room share: a real Kafka and a real Redis for the session, and settings that point at them.

Laws run on few examples, to keep the suite short; `--hypothesis-profile=thorough` runs many.
"""

import asyncio
import os
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from pydantic import SecretStr

from freshet.settings import Settings
from freshet.stack import kafka as kafka_node
from freshet.stack import redis as redis_node
from freshet.stack import watch
from freshet.stack.ports import choose
from freshet.stack.probes import Probe
from freshet.stack.probes import kafka as kafka_probe
from freshet.stack.probes import redis as redis_probe

hypothesis.settings.register_profile("quick", max_examples=40, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2_000, deadline=None)
hypothesis.settings.load_profile("quick")

START_S = 60
"""A broker on a busy machine of two cores has needed 15 s; beyond a minute something is wrong."""


def _anywhere() -> int:
    """A port to start looking from, far from where another session of tests looks at the same moment."""
    return random.SystemRandom().randrange(20_000, 30_000)


@dataclass(frozen=True)
class Kafka:
    """A real broker. `bootstrap` is its `host:port`."""

    bootstrap: str
    process: "subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Redis:
    """A real Redis. `url` is `redis://host:port/0`."""

    url: str
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="session")
def _mark() -> Iterator[str]:
    """All servers of this session, ended with it, however it ends."""
    mark = f"tests-{uuid.uuid4().hex}"
    watchman = watch.start(mark)
    yield mark
    watch.sweep(mark)
    watch.dismiss(watchman)


@contextmanager
def _serving(command: list[str], log: Path, mark: str, probe: Probe) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that answers, for as long as the block runs."""
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {watch.MARK: mark},
        ) as process,
    ):
        try:
            _await(process, probe, log)
            yield process
        finally:
            process.kill()


def _await(process: "subprocess.Popen[bytes]", probe: Probe, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while True:
        try:
            asyncio.run(probe())
        except OSError as error:
            if process.poll() is not None or time.monotonic() > give_up:
                said = log.read_text(errors="replace")[-3000:]
                pytest.fail(f"{process.args[0]} did not start ({error}):\n{said}")  # type: ignore[index]
            time.sleep(0.1)
        else:
            assert process.poll() is None, f"another server answers on the port of {process.args!r}"
            return


@pytest.fixture(scope="session")
def kafka(_mark: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker for the session. Use `prefix` to keep tests apart."""
    folder = tmp_path_factory.mktemp("kafka")
    port = choose(_anywhere())
    command = kafka_node.prepare(folder, Settings().cache_dir, port=port, controller_port=choose(port + 1), heap_mb=512)
    with _serving(command, folder / "kafka.log", _mark, kafka_probe("127.0.0.1", port)) as process:
        yield Kafka(f"127.0.0.1:{port}", process)


@pytest.fixture(scope="session")
def redis_server(_mark: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for the session. `settings` empties it for each test that uses it."""
    folder = tmp_path_factory.mktemp("redis")
    port = choose(_anywhere())
    with _serving(
        redis_node.prepare(folder, port=port), folder / "redis.log", _mark, redis_probe("127.0.0.1", port)
    ) as process:
        yield Redis(f"redis://127.0.0.1:{port}/0", process)


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}-"


@pytest.fixture
async def settings(kafka: Kafka, redis_server: Redis, prefix: str, tmp_path: Path) -> Settings:
    """Settings on the real servers with a home, topics and application id of their own, and an empty Redis."""
    from redis.asyncio import Redis as Client

    from streams.topics import create_topics

    made = Settings(
        home=tmp_path / "home",
        kafka=kafka.bootstrap,
        redis_url=redis_server.url,
        topic_prefix=prefix,
        app_id=f"{prefix}app",
        bundle_key=SecretStr("a key for tests only"),
        worker_metrics_port=choose(_anywhere()),
        sink_metrics_port=choose(_anywhere()),
        ingest_port=choose(_anywhere()),
        serve_port=choose(_anywhere()),
        deadline_ms=60_000,  # no stage is left out because the machine is busy
    )
    made.home.mkdir()
    async with Client.from_url(redis_server.url) as client:
        await client.flushall()
    await create_topics(made)
    return made

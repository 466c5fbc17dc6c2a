"""A broker that goes away and comes back: what ingest promised is there, what it did not promise it said so."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshet.settings import Settings
from freshet.stack import kafka as kafka_node
from freshet.stack.ports import choose
from freshet.stack.probes import kafka as probe
from streams.topics import create_topics
from tests.streams.test_ingest import Client, client_of, events_in_kafka


class Broker:
    """A broker of this test alone, since it is killed."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = choose(31_092), folder
        self._command = kafka_node.prepare(
            folder, Settings().cache_dir, port=self.port, controller_port=choose(self.port + 1), heap_mb=256
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "kafka.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    async def listening(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await probe("127.0.0.1", self.port)()
                except OSError:
                    await asyncio.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "kafka")
    yield made
    made.kill()


async def post(client: Client, name: str) -> int:
    event = {"user_id": "u", "item_id": "i", "type": "view", "event_id": name}
    return (await client.post("/events", json=event)).status_code


@pytest.mark.kafka
@pytest.mark.slow
async def test_what_was_acknowledged_survives_and_the_rest_is_refused_until_the_broker_is_back(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.start()
    await broker.listening()
    settings = Settings(home=tmp_path / "home", kafka=f"127.0.0.1:{broker.port}", partitions=2)
    await create_topics(settings)
    monkeypatch.setattr("streams.publisher.ACK_S", 2.0)
    async with client_of(settings) as client:
        assert await post(client, "before") == 202
        broker.kill()
        assert await post(client, "during") == 503
        assert (await client.get("/healthz")).status_code == 503
        broker.start()
        async with asyncio.timeout(60):
            while await post(client, "after") != 202:  # noqa: ASYNC110  (what a client would do)
                await asyncio.sleep(0.2)
        assert (await client.get("/healthz")).status_code == 200
    names = [event.event_id for event in await events_in_kafka(settings)]
    assert {"before", "after"} <= set(names)
    assert names[0] == "before"

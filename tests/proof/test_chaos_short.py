"""The short form of the proof: real workers on a real broker, killed and stopped under load, judged by the oracle."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from freshet.settings import Settings
from freshet.stack.ports import choose
from tests.proof import oracle, workload
from tests.proof.fleet import FAUST, Fleet

READY = "Worker ready"
BROKEN = [sys.executable, "-m", "tests.proof.broken_worker"]

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = choose(random.SystemRandom().randrange(20_000, 30_000))
        if port not in found:
            found.append(port)
    return found


async def flow(settings: Settings, rate: float, stop: asyncio.Event, seed: int) -> int:
    """Events at `rate` a second, with retries and poison, until told to stop. Returns how many went in."""
    pairs = workload.records(1_000_000, seed, users=5_000, items=500, duplicates=0.03, poison=0.002)
    loop, step, count = asyncio.get_running_loop(), 0.05, 0
    due = loop.time()

    def slice_of(size: int) -> Iterator[tuple[bytes, bytes]]:
        return (next(pairs) for _ in range(size))

    async with workload.AIOKafkaProducer(
        bootstrap_servers=settings.kafka, enable_idempotence=True, acks="all"
    ) as producer:
        while not stop.is_set():
            futures = [
                await producer.send(settings.topic("events"), value, key) for key, value in slice_of(int(rate * step))
            ]
            await asyncio.gather(*futures)
            count += len(futures)
            due += step
            await asyncio.sleep(max(0.0, due - loop.time()))
    return count


@asynccontextmanager
async def flowing(settings: Settings, rate: float, seed: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(flow(settings, rate, stop, seed))
    try:
        yield
    finally:
        stop.set()
        assert await task > 1_000, "hardly any events flowed: the faults hit nothing"


async def started(fleet: Fleet) -> None:
    for i in (0, 1):
        await asyncio.to_thread(fleet.wait_until_said, i, READY)


async def zombie(fleet: Fleet) -> None:
    """Stop one worker in its tracks until the other has its partitions and is at work on them, then wake it up."""
    before = fleet.said(1, READY)
    fleet.send(0, signal.SIGSTOP)
    try:
        await asyncio.to_thread(fleet.wait_until_said, 1, READY, before + 1, 30)
        await asyncio.sleep(1.0)
    finally:
        fleet.send(0, signal.SIGCONT)


async def verdict(settings: Settings, limit_s: float = 40) -> list[str]:
    """What does not hold once all is quiet; empty when everything does."""
    try:
        await asyncio.to_thread(oracle.wait_until_quiet, settings, limit_s)
    except TimeoutError as hang:
        return [f"HANG: {hang}", *await asyncio.to_thread(oracle.violations, settings)]
    return await asyncio.to_thread(oracle.violations, settings)


async def test_nothing_is_lost_or_doubled_by_kills_zombies_retries_and_poison(
    settings: Settings, tmp_path: Path
) -> None:
    rnd = random.Random(seed := 20_261_120)
    kills = 5
    with Fleet(settings, ports(2), tmp_path) as fleet:
        async with flowing(settings, 2_000, seed):
            await started(fleet)
            for k in range(kills):
                await asyncio.sleep(rnd.uniform(0.2, 3.0))  # also while it starts, restores or rebalances
                fleet.send(k % 2, signal.SIGKILL)
            await started(fleet)
            await asyncio.sleep(2.0)
            await zombie(fleet)
            await asyncio.sleep(1.0)
        assert await verdict(settings) == []
    assert fleet.exits[-9] == kills
    assert fleet.exits[70] >= 1, "the zombie was not fenced"
    assert "another worker owns it now" in fleet.log(0).read_text(), "the zombie left for another reason"
    assert fleet.exits[0] == 2, f"not every worker stopped cleanly at the end: {fleet.exits}"


async def test_a_worker_that_joins_before_the_first_commit_costs_nothing(settings: Settings, tmp_path: Path) -> None:
    """The rebalance then meets partitions without a committed offset; such starts lost records once."""
    backlog = workload.records(20_000, 4, users=5_000, items=500, duplicates=0.03)
    await workload.produce(settings.kafka, settings.topic("events"), backlog)
    with Fleet(settings, ports(2), tmp_path, apart_s=0.7) as fleet:
        await started(fleet)
        assert await verdict(settings) == []
    assert fleet.exits == {0: 2}


@asynccontextmanager
async def refusing(settings: Settings) -> AsyncIterator[None]:
    """The broker takes no batch of rows that is larger than a few rows."""
    topic = settings.topic("user-features")

    async def limit(size: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
        await admin.start()
        try:
            await admin.alter_configs(
                [
                    ConfigResource(
                        ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size), "cleanup.policy": "compact"}
                    )
                ]
            )
        finally:
            await admin.close()

    await limit(2_000)
    try:
        yield
    finally:
        await limit(1_048_588)


@pytest.mark.parametrize(
    ("command", "right"), [(FAUST, True), ([*BROKEN, "unawaited"], False)], ids=["ours", "unawaited"]
)
async def test_a_broker_that_refuses_rows_costs_nothing_unless_sends_are_not_awaited(
    settings: Settings, tmp_path: Path, command: list[str], right: bool
) -> None:
    with Fleet(settings, ports(1), tmp_path, command) as fleet:
        async with flowing(settings, 1_000, seed=3):
            await asyncio.to_thread(fleet.wait_until_said, 0, READY)
            await asyncio.sleep(1.0)
            async with refusing(settings):
                await asyncio.sleep(2.0)
            await asyncio.sleep(1.0)
        found = await verdict(settings, 40 if right else 10)
    assert (found == []) == right, found

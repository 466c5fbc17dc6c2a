"""The archive sink as a process, killed at random moments: each record is archived once."""

import asyncio
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from freshet.settings import Settings
from streams.sinks import files
from streams.sinks.archive import ArchiveError, ArchiveSink, archive_until_now
from streams.topics import partition_of

pytestmark = pytest.mark.kafka


@contextmanager
def sink(settings: Settings, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "streams.sinks", "archive"]
    with subprocess.Popen(command, env=os.environ | settings.as_env() | env) as process:
        try:
            yield process
        finally:
            process.kill()


async def send(settings: Settings, topic: str, begin: int, end: int, transactional: str | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, transactional_id=transactional)
    await producer.start()
    try:
        if transactional:
            await producer.begin_transaction()
        for n in range(begin, end):
            key = f"u{n % 11}".encode()
            await producer.send(settings.topic(topic), b"%d" % n, key, partition_of(key, settings.partitions))
        if transactional:
            await producer.commit_transaction()
    finally:
        await producer.stop()


def archived(settings: Settings, topic: str) -> list[int]:
    """The values of all records, in the order of partitions and offsets; offsets must rise."""
    values = []
    for found in files.files(settings.archive_dir, topic).values():
        last = -1
        for file in found:
            assert file.first == last + 1 or topic == "dead-letters"
            table = pq.read_table(file.path)
            offsets = table.column("offset").to_pylist()
            assert (offsets[0], offsets[-1]) == (file.first, file.last)
            assert sorted(set(offsets)) == offsets
            assert offsets[0] > last
            last = offsets[-1]
            values += [int(v) for v in table.column("value").to_pylist()]
    return values


def _files(settings: Settings) -> int:
    return sum(len(found) for found in files.files(settings.archive_dir, "events").values())


@pytest.mark.slow
async def test_each_record_is_archived_once_though_the_sink_is_killed(settings: Settings) -> None:
    chance = random.Random(5)
    sent = 0
    settings.archive_dir.mkdir(parents=True)
    for _ in range(3):
        with sink(settings) as process:
            had, kill_at, give_up = _files(settings), math.inf, time.monotonic() + 60
            while time.monotonic() < kill_at:
                assert time.monotonic() < give_up, "the sink wrote no file"
                if kill_at == math.inf and _files(settings) > had:
                    kill_at = time.monotonic() + chance.uniform(0, 1.5)
                await send(settings, "events", sent, sent + 200)
                sent += 200
                (settings.archive_dir / ".flush-wanted").touch()
                await asyncio.sleep(chance.uniform(0.05, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
        (settings.archive_dir / "events" / "p=0").mkdir(parents=True, exist_ok=True)
        (settings.archive_dir / "events" / "p=0" / "x.parquet.unfinished").write_bytes(b"half")
    assert archived(settings, "events")
    await archive_until_now(settings)
    assert sorted(archived(settings, "events")) == list(range(sent))
    assert not list(settings.archive_dir.rglob("*.unfinished"))


async def test_until_now_is_written_by_the_sink_that_runs(settings: Settings) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(ArchiveSink(settings).run(stop))
    await asyncio.sleep(1)
    await send(settings, "responses", 0, 500)
    await send(settings, "dead-letters", 0, 50, transactional=f"{settings.app_id}-t")
    await archive_until_now(settings)
    assert sorted(archived(settings, "responses")) == list(range(500))
    assert sorted(archived(settings, "dead-letters")) == list(range(50))
    with pytest.raises(ArchiveError, match="another process writes"):
        await ArchiveSink(settings).run(asyncio.Event())
    stop.set()
    await running
    await archive_until_now(settings)
    assert len(archived(settings, "dead-letters")) == 50


async def test_marks_of_transactions_expire_and_are_no_gap(settings: Settings) -> None:
    await send(settings, "dead-letters", 0, 1, transactional=f"{settings.app_id}-t")
    ends = (await archive_until_now(settings))["dead-letters"]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    topic = settings.topic("dead-letters")
    await admin.delete_records({TopicPartition(topic, p): RecordsToDelete(end) for p, end in ends.items() if end})
    await admin.close()
    await archive_until_now(settings)
    assert archived(settings, "dead-letters") == [0]


async def test_a_topic_that_was_made_anew_is_not_mixed_into_the_archive(settings: Settings) -> None:
    class Record:
        offset, key, value, timestamp = 7, b"k", b"v", 0

    files.write(settings.archive_dir, "events", 0, [Record()])
    with pytest.raises(ArchiveError, match=r"up to offset 7, but the topic ends at 0"):
        await archive_until_now(settings)

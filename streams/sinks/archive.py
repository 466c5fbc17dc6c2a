"""The archive sink: raw topics into Parquet files named by their offsets (`streams.sinks.files`).

The files' names are the only memory of how far it came, so a crash at any point neither loses nor repeats a record.
One process writes at a time (a lock in the archive's folder says so); whoever needs all that is in Kafka at this
moment calls `archive_until_now`, which writes it, or has the sink that runs write it at once.
"""

import asyncio
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from freshet.settings import Settings
from streams.sinks import files, metrics
from streams.topics import DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES, TOPICS

ARCHIVED = (EVENTS, REQUESTS, RESPONSES, DEAD_LETTERS)
FLUSH_S = 5.0
FLUSH_RECORDS = 50_000
FLUSH_BYTES = 64 * 1024 * 1024
"""A file is closed when records have waited for this long, or when all partitions together hold this much."""
ASKED_S = 0.5
"""Somebody who asks for a file gets one at once when it is quiet, and after this long while records keep coming."""
POLL_MS = 200
POLL_RECORDS = 20_000
PATIENCE_S = 60.0
"""A sink that runs and lags by a million records catches up within this."""
LOCK, WANTED, REACHED = ".lock", ".flush-wanted", ".reached.json"

Ends = dict[str, dict[int, int]]
"""Topic (without prefix) -> partition -> next offset."""

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """The archive cannot be continued, or was not continued in time. The text says what to do."""


class Busy(ArchiveError):
    """Another process writes this archive."""


class ArchiveSink:
    """Made inside the event loop that runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._dir = settings, settings.archive_dir
        self._names = {settings.topic(name): name for name in ARCHIVED}
        self._waiting: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = {}
        self._records, self._bytes, self._since = 0, 0, 0.0
        self._wanted = 0.0
        self._consumer: AIOKafkaConsumer[bytes, bytes]

    async def run(self, stop: asyncio.Event, until: Ends | None = None) -> None:
        """Until `stop` is set, or until all offsets below `until` are archived. Raises `ArchiveError`, `Busy`."""
        with _locked(self._dir):
            swept = files.sweep(self._dir)
            if swept:
                log.warning(
                    "removed %d half-written files of a sink that was killed; their records are read again", swept
                )
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._settings.kafka,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
            await self._consumer.start()
            try:
                self._consumer.assign(_partitions(self._settings))
                await self._take_up()
                while not stop.is_set() and not (until and await self._is_past(until)):
                    await self._step()
                await self._flush()
            finally:
                await self._consumer.stop()

    async def _take_up(self) -> None:
        """Seek behind what is on the disk. Raises `ArchiveError` where Kafka and the disk do not fit together."""
        begins = await self._consumer.beginning_offsets(self._consumer.assignment())
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        archived, reached = {name: files.files(self._dir, name) for name in ARCHIVED}, _reached(self._dir)
        for partition, begin in begins.items():
            name = self._names[partition.topic]
            mine, place = archived[name].get(partition.partition), begin
            if mine:  # behind its last record there may be marks of transactions, which expire, too
                place = max(mine[-1].last + 1, reached.get(name, {}).get(partition.partition, 0))
            what = f"{partition.topic} partition {partition.partition}"
            if place > ends[partition]:
                raise ArchiveError(
                    f"the archive in {self._dir} holds {what} up to offset {place - 1}, "
                    f"but the topic ends at {ends[partition]}: it was made anew. "
                    f"Move the archive away, or point FRESHET_ARCHIVE_DIR at an empty folder"
                )
            if place < begin:
                raise ArchiveError(
                    f"offsets {place} to {begin - 1} of {what} are no longer in Kafka "
                    "and not in the archive: they expired before this sink ran. "
                    f"Move {files.folder(self._dir, name, partition.partition)} away "
                    "to go on without them"
                )
            self._consumer.seek(partition, place)

    async def _step(self) -> None:
        polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        for partition, records in polled.items():
            if not self._records:
                self._since = time.monotonic()
            self._waiting.setdefault(partition, []).extend(records)
            self._records += len(records)
            self._bytes += sum(len(r.value or b"") + len(r.key or b"") for r in records)
        age = time.monotonic() - self._since if self._records else 0.0
        late, wanted = age >= FLUSH_S, _time_of(self._dir / WANTED)
        asked = wanted != self._wanted and (not polled or age >= ASKED_S)  # first all that came before
        if late or asked or self._records >= FLUSH_RECORDS or self._bytes >= FLUSH_BYTES:
            await self._flush()
            self._wanted = wanted if asked else self._wanted

    async def _flush(self) -> None:
        """Write what waits, a file a partition, then say how far the archive reaches."""
        waiting, self._waiting, self._records, self._bytes = self._waiting, {}, 0, 0
        await asyncio.to_thread(self._write, waiting)
        reached: Ends = {name: {} for name in ARCHIVED}
        for partition in self._consumer.assignment():
            name = self._names[partition.topic]
            reached[name][partition.partition] = position = await self._consumer.position(partition)
            end = self._consumer.highwater(partition)
            metrics.LAG.labels("archive", name).set(max(0, (end or position) - position))
        unfinished = self._dir / f"{REACHED}{files.UNFINISHED}"
        unfinished.write_text(json.dumps(reached))
        unfinished.rename(self._dir / REACHED)

    def _write(self, waiting: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]) -> None:
        for partition, records in waiting.items():
            name = self._names[partition.topic]
            files.write(self._dir, name, partition.partition, records)
            metrics.WRITTEN.labels("archive", name).inc(len(records))

    async def _is_past(self, until: Ends) -> bool:
        for name, offsets in until.items():
            for partition, end in offsets.items():
                if await self._consumer.position(TopicPartition(self._settings.topic(name), partition)) < end:
                    return False
        return True


async def archive_until_now(settings: Settings) -> Ends:
    """Have all that is in Kafka at this moment archived; returns up to which offsets. Raises `ArchiveError`."""
    until = await _ends(settings)
    try:
        await ArchiveSink(settings).run(asyncio.Event(), until)
    except Busy:
        await _ask_for(settings.archive_dir, until)
    return until


async def _ask_for(archive_dir: Path, until: Ends) -> None:
    """Have the sink that runs write what it has, and wait until that is enough."""
    give_up = time.monotonic() + PATIENCE_S
    while not _reaches(archive_dir, until):
        if time.monotonic() > give_up:
            raise ArchiveError(
                f"the archive sink has not caught up within {PATIENCE_S:.0f} s; "
                "see its log and its metric freshet_sink_lag_records"
            )
        (archive_dir / WANTED).touch()
        await asyncio.sleep(0.25)


def _reaches(archive_dir: Path, until: Ends) -> bool:
    reached = _reached(archive_dir)
    return all(reached.get(name, {}).get(p, -1) >= end for name, ends in until.items() for p, end in ends.items())


def _reached(archive_dir: Path) -> Ends:
    """Up to which offsets the archive held all when it was last written; nothing before that."""
    try:
        said = json.loads((archive_dir / REACHED).read_text())
    except FileNotFoundError:
        return {}
    return {name: {int(partition): end for partition, end in ends.items()} for name, ends in said.items()}


async def _ends(settings: Settings) -> Ends:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka)
    await consumer.start()
    try:
        found = await consumer.end_offsets(_partitions(settings))
    finally:
        await consumer.stop()
    return {
        name: {p.partition: end for p, end in found.items() if p.topic == settings.topic(name)} for name in ARCHIVED
    }


def _partitions(settings: Settings) -> list[TopicPartition]:
    return [
        TopicPartition(settings.topic(name), p)
        for name in ARCHIVED
        for p in range(TOPICS[name].partitions or settings.partitions)
    ]


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0.0


@contextmanager
def _locked(archive_dir: Path) -> Iterator[None]:
    """Be the only writer. The lock goes with the process, however it ends. Raises `Busy`."""
    archive_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(archive_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process writes the archive in {archive_dir}") from None
        yield
    finally:
        os.close(handle)

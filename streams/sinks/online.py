"""The online sink: carries states from `user-features` and `item-features` into Redis, each key's newest only.

Rows go through a compare-and-set on their version, so doing any of it twice, or late, does no harm. The sink's place is
kept in Redis beside the rows (`streams.sinks.progress`); Kafka is told of it for those who watch. One process reads all
partitions, and a second one may run beside it as a stand-by.
"""

import asyncio
import logging
import time
from collections import defaultdict
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from feature_repo import compare_and_set
from feature_repo.features import item, user
from feature_repo.layout import (
    VIEWS,
    NoState,
    entity_key,
    rank_field,
    state_field,
    stored_rows,
    time_field,
    version_field,
)
from freshet.settings import Settings
from streams.profiles import Profile, is_meta_key
from streams.sinks import metrics
from streams.sinks.progress import Progress
from streams.topics import ITEM_FEATURES, TOPICS, USER_FEATURES

SOURCES: dict[str, Profile] = {USER_FEATURES: user, ITEM_FEATURES: item}
POLL_RECORDS = 4_000
"""At most: 0.2 s of work. When it is quiet a poll returns with what there is at once."""
POLL_MS = 500
CHECK_EVERY_S = 1.0
"""How often a sink tells where it is, and a quiet one looks whether Redis still has what it was given."""
BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
REDIS_TIMEOUT_S = 5.0
AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError)
"""Redis that restarts, loads its file, fails over or is full: wait for it. Anything else ends the process."""
FRESH_S = 3_600.0
"""Rows of replayed history are years old and say nothing of freshness."""

log = logging.getLogger(__name__)


class Lost(RuntimeError):
    """The topics and the store do not belong together. Its text says what to do."""


class OnlineSink:
    """Made inside the event loop that runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = Redis.from_url(
            settings.redis_url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._progress = {name: Progress(self._redis, settings.topic(name)) for name in SOURCES}
        self._known: dict[str, dict[int, int]] = {}
        self._names = {settings.topic(name): name for name in SOURCES}
        self._checked = 0.0
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka,
            group_id=f"{settings.app_id}-sink-online",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
            check_crcs=False,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises what it cannot wait out."""
        await self._consumer.start()
        try:
            self._consumer.assign(
                [
                    self._partition(name, p)
                    for name in SOURCES
                    for p in range(TOPICS[name].partitions or self._settings.partitions)
                ]
            )
            await self._return_to_store()
            while not stop.is_set():
                await self._step()
        finally:
            await self._consumer.stop()
            self._redis.close()

    async def _step(self) -> None:
        polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        try:
            if polled and not await asyncio.to_thread(self._write, polled):
                await self._rewind()
            elif time.monotonic() - self._checked >= CHECK_EVERY_S:
                if await asyncio.to_thread(self._read_progress) != self._known:
                    await self._rewind()
                await self._report()
                self._checked = time.monotonic()
        except AWAY as error:
            await self._wait_for_redis(error)

    def _partition(self, name: str, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic(name), partition)

    # Writing

    def _write(self, polled: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]) -> bool:
        """Rows, then progress once Redis has acknowledged them. False: Redis has lost rows that it once had."""
        newest: dict[str, dict[bytes, bytes | None]] = defaultdict(dict)
        reached: dict[str, dict[int, int]] = defaultdict(dict)
        for partition, records in polled.items():
            name = self._names[partition.topic]
            reached[name][partition.partition] = records[-1].offset + 1
            newest[name].update((record.key, record.value) for record in records if not is_meta_key(record.key))
        for name, rows in newest.items():
            self._write_rows(name, rows)
        for name, to in reached.items():
            if not self._progress[name].advance(self._known[name], to):
                return False
            self._known[name].update(to)
        return True

    def _write_rows(self, name: str, rows: dict[bytes, bytes | None]) -> None:
        profile = SOURCES[name]
        view = VIEWS[profile.name]
        fields = time_field(view), rank_field(view), state_field(profile.name), version_field(profile.name)
        for key in (key for key, data in rows.items() if data is None):
            self._redis.execute_command("HDEL", entity_key(profile.key, key.decode()), *fields)  # type: ignore[no-untyped-call]
        states = [(key, data) for key, data in rows.items() if data is not None]
        try:
            ready, arrivals = stored_rows(profile.name, profile.key, states)
        except NoState as error:
            key, data = error.args
            raise Lost(
                f"{name} holds {len(data)} bytes under {key[:80]!r} that are no state; "
                "is another application writing to it?"
            ) from error
        written = compare_and_set.write(self._redis, view, ready)
        metrics.WRITTEN.labels("online", name).inc(written)
        metrics.STALE.labels(name).inc(len(ready) - written)
        now, observe = time.time(), metrics.FRESHNESS.labels(view).observe
        for at in arrivals:
            if (age := now - at / 1e6) < FRESH_S:
                observe(age)

    # Finding the place

    def _read_progress(self) -> dict[str, dict[int, int]]:
        return {name: progress.read() for name, progress in self._progress.items()}

    async def _rewind(self) -> None:
        log.error(
            "Redis does not hold the progress that it was given: it lost its tail, was flushed, or another sink runs. "
            "Going back to what it holds"
        )
        for name in SOURCES:
            metrics.REWINDS.labels(name).inc()
        await self._return_to_store()

    async def _return_to_store(self) -> None:
        """Seek to the progress in Redis; waits for Redis. Raises `Lost` when Kafka does not reach so far."""
        while True:
            try:
                self._known = await asyncio.to_thread(self._read_progress)
                break
            except AWAY as error:
                await self._wait_for_answer(error)
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        begins = await self._consumer.beginning_offsets(self._consumer.assignment())
        for partition, end in ends.items():
            place = self._known[self._names[partition.topic]].get(partition.partition, begins[partition])
            if place > end:
                raise Lost(
                    f"Redis has {partition.topic} partition {partition.partition} up to offset {place}, "
                    f"but it ends at {end}: the topic was made anew. "
                    "Empty that Redis database (`redis-cli -u <FRESHET_REDIS_URL> flushdb`), "
                    "or point FRESHET_REDIS_URL at another"
                )
            self._consumer.seek(partition, place)

    async def _wait_for_redis(self, error: BaseException) -> None:
        await self._wait_for_answer(error)
        await self._return_to_store()

    async def _wait_for_answer(self, error: BaseException) -> None:
        """Until Redis answers again. Says so once at the beginning and once at the end."""
        metrics.OUTAGES.inc()
        log.error("Redis does not take rows (%s): waiting for it, nothing is lost meanwhile", error)
        begun, tries = time.monotonic(), 0
        while True:
            await asyncio.sleep(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1
            try:
                await asyncio.to_thread(self._probe)
            except AWAY:
                continue
            log.warning("Redis takes rows again after %.1f s", time.monotonic() - begun)
            return

    def _probe(self) -> None:
        """A write, as a server that is full or a replica still answers to PING."""
        self._redis.hset("freshet:probe", "at", str(time.time()))

    # Telling others

    async def _report(self) -> None:
        assignment: Any = self._consumer.assignment()
        behind: dict[str, int] = dict.fromkeys(SOURCES, 0)
        for partition in assignment:
            end = self._consumer.highwater(partition)
            if end is not None:
                behind[self._names[partition.topic]] += max(0, end - await self._consumer.position(partition))
        for name, records in behind.items():
            metrics.LAG.labels("online", name).set(records)
        places = {
            self._partition(name, p): offset for name, known in self._known.items() for p, offset in known.items()
        }
        if places:
            await self._consumer.commit(places)

"""Sees how far every place of the line has come, ten times a second: whether work is in progress, and goes on.

Places: `fold` is what the group has committed of `events`, `store` what Redis holds of `user-features`, `archive`
what is in Parquet files. All are offsets of a partition, read from outside.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition
from redis import Redis, RedisError

from freshet.settings import Settings
from streams.sinks import files
from streams.topics import EVENTS, USER_FEATURES

EVERY_S = 0.1
SETTLED_S = 0.3
"""A commit that was on its way at a kill shows until then."""
FOLD, STORE, ARCHIVE = "fold", "store", "archive"
PLACES = (FOLD, STORE, ARCHIVE)
Places = dict[int, int]
"""Partition -> offset."""


class Progress:
    """Samples in a thread of its own. A place that does not answer keeps its last offsets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._times: list[float] = []
        self._samples: list[dict[str, Places]] = []
        self._last: dict[str, Places] = {place: {} for place in PLACES}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def now(self, place: str) -> Places:
        """The newest sample of a place."""
        return dict(self._last[place])

    def behind(self, place: str, ends: Mapping[int, int]) -> dict[int, int]:
        """Partition -> records that this place has not done yet, where there are any; of `store`, not folded yet."""
        reached = self.now(FOLD if place == STORE else place)
        return {p: end - reached.get(p, 0) for p, end in dict(ends).items() if end > reached.get(p, 0)}

    def moved_after(self, place: str, since: float, marks: Mapping[int, int]) -> float | None:
        """Seconds from `since` (monotonic) until every partition of `marks` was beyond its mark; None: not yet.

        What shows within `SETTLED_S` was done before, so a mark is raised to it.
        """
        begin = bisect_right(self._times, since + SETTLED_S)
        raised = dict(marks)
        for at in range(begin, len(self._times)):
            sample = self._samples[at][place]
            if at == begin:
                raised = {p: max(mark, sample.get(p, 0)) for p, mark in marks.items()}
            elif all(sample.get(p, 0) > mark for p, mark in raised.items()):
                return self._times[at] - since
        return None

    def _watch(self) -> None:
        consumer = Consumer(
            {"bootstrap.servers": self._settings.kafka, "group.id": self._settings.topic(self._settings.app_id)}
        )
        client = Redis.from_url(self._settings.redis_url, socket_timeout=1, socket_connect_timeout=1)
        try:
            while not self._stopping.wait(EVERY_S):
                self._last = {FOLD: self._fold(consumer), STORE: self._store(client), ARCHIVE: self._archive()}
                self._samples.append(self._last)
                self._times.append(time.monotonic())
        finally:
            consumer.close()
            client.close()

    def _fold(self, consumer: Consumer) -> Places:
        topic = self._settings.topic(EVENTS)
        asked = [TopicPartition(topic, p) for p in range(self._settings.partitions)]
        try:
            return {tp.partition: max(0, tp.offset) for tp in consumer.committed(asked, 1.0)}
        except KafkaException:
            return self._last[FOLD]

    def _store(self, client: Redis) -> Places:
        try:
            found = client.hgetall(f"freshet:progress:{self._settings.topic(USER_FEATURES)}")
        except RedisError:
            return self._last[STORE]
        return {int(p): int(offset) for p, offset in found.items()}  # type: ignore[union-attr]

    def _archive(self) -> Places:
        found = files.files(self._settings.archive_dir, EVENTS)
        return {p: some[-1].last + 1 for p, some in found.items() if some}

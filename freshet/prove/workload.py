"""The workload: events as clients send them, with retries, late ones and poison, all from one seed.

It makes JSON by hand and sends through librdkafka, so it shares no code with the line; a mistake there cannot hide.
Which records count is left to `monitoring.counting`.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaError, Message, Producer

START_US = 1_780_000_000_000_000
STEP_US = 20_000
"""Event time between two events: 500,000 of them are 2.8 hours."""
HOUR_US = 3_600_000_000
REMEMBERED = 2_000
"""Retries come this many events later at most, but for the late ones."""
TYPES = (*["view"] * 60, *["click"] * 20, *["purchase"] * 5, *["rate"] * 10, *["impression"] * 5)
POISON = (
    b"",
    b"not json",
    b'{"event_id": "half',
    b"[1, 2, 3]",
    b'{"x":' + b"[" * 5_000,
    b'{"event_id":"p","user_id":"u1","item_id":"i1","type":"NO TYPE","event_time":1,"arrival":1}',
    b'{"event_id":"p","user_id":"someone else","item_id":"i1","type":"view","event_time":1,"arrival":1}',
    b'{"event_id":"p","user_id":"u1","item_id":"i1","type":"view","event_time":99999999999999999999,"arrival":9}',
)
SLICE_S = 0.02
SLOWER = 10
"""Beyond what it was allowed to, the workload sends so much slower: something must go on for a fault to hit."""
BEHIND_S = 1.0
"""A rate that was missed by more, on a busy machine, is not made up for."""


@dataclass(frozen=True)
class Shape:
    """What is sent. `users` and `items` by a long-tailed law; the shares are of all records.

    `retries` repeat the bytes of an earlier record; `late_retries` of those repeat one up to an hour old, as far as
    the dedup window reaches. `poison` is what no fold may apply. `jumps` moves the senders' clock back or ahead, by up
    to an hour, every so many events (0: never). With `silent` the first of four partitions gets nothing.
    """

    users: int = 30_000
    items: int = 3_000
    retries: float = 0.03
    late_retries: float = 0.0
    poison: float = 0.001
    jumps: int = 0
    silent: bool = False


def records(count: int, seed: int, shape: Shape) -> Iterator[tuple[bytes, bytes]]:
    """`count` pairs (key, value); times up to two minutes out of order."""
    rnd = random.Random(seed)
    chance, users, items = rnd.random, shape.users, shape.items
    sent: deque[tuple[bytes, bytes]] = deque(maxlen=REMEMBERED)
    old: deque[tuple[bytes, bytes]] = deque(maxlen=HOUR_US // STEP_US // 100)
    skew = 0
    for i in range(count):
        if sent and chance() < shape.retries:
            pool = old if old and chance() < shape.late_retries else sent
            yield pool[int(chance() * len(pool))]
            continue
        user_id = f"u{int(users * chance() ** 2)}"
        while shape.silent and (murmur2(user_id.encode()) & 0x7FFFFFFF) % 4 == 0:
            user_id = f"u{int(users * chance() ** 2)}"
        if chance() < shape.poison:
            yield user_id.encode(), POISON[int(chance() * len(POISON))]
            continue
        if shape.jumps and i % shape.jumps == 0:
            skew = rnd.randrange(-HOUR_US, HOUR_US)
        arrival = max(0, START_US + i * STEP_US + skew)
        kind = TYPES[int(chance() * len(TYPES))]
        value = f',"value":{int(chance() * 500) / 100 + 0.01:.2f}' if kind in ("purchase", "rate") else ""
        categories = ",".join(f'"c{int(chance() * 18)}"' for _ in range(int(chance() * 3)))
        record = (
            user_id.encode(),
            f'{{"event_id":"{seed}-{i}","user_id":"{user_id}","item_id":"i{int(items * chance() ** 2)}",'
            f'"type":"{kind}","event_time":{arrival - int(chance() * 120_000_000)},"arrival":{arrival},'
            f'"categories":[{categories}]{value}}}'.encode(),
        )
        sent.append(record)
        if i % 100 == 0:
            old.append(record)
        yield record


class Workload:
    """Sends `count` records from a thread of its own, at `rate` a second as far as it was allowed to.

    `ends` is, for each partition, the offset behind the last record that the broker has acknowledged.
    """

    def __init__(self, kafka: str, topic: str, pairs: Iterator[tuple[bytes, bytes]], count: int, rate: float) -> None:
        self._pairs, self._topic, self.count, self._rate = pairs, topic, count, rate
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "enable.idempotence": True,
                "partitioner": "murmur2",
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
                "message.max.bytes": 20_000_000,
                "batch.size": 500_000,
                "log_level": 0,  # it says much of a broker that is killed
            }
        )
        self.sent = self.acknowledged = 0
        self.refused: list[str] = []
        self.ends: dict[int, int] = {}
        self._allowed, self._stopping = 0, False
        self._thread = threading.Thread(target=self._send, name="workload")

    def start(self) -> None:
        self._thread.start()

    def allow(self, up_to: int) -> None:
        """Let it send records below this number at its full rate."""
        self._allowed = max(self._allowed, up_to)

    def finish(self, limit_s: float = 300.0) -> None:
        """Send the rest; returns when all is acknowledged. Raises `TimeoutError`."""
        self.allow(self.count)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the workload sent {self.sent:,} of {self.count:,} records in {limit_s:.0f} s")

    def send_one(self, key: bytes, value: bytes) -> None:
        """Send a record of its own, beside the others."""
        self._produce(key, value)
        self._producer.flush(30)

    def stop(self) -> None:
        """Send no more."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()

    def _send(self) -> None:
        due, size = time.monotonic(), max(1, int(self._rate * SLICE_S))
        for key, value in self._pairs:
            if self._stopping:
                break
            self._produce(key, value)
            self.sent += 1
            if self.sent % size == 0:
                due += SLICE_S * (SLOWER if self.sent >= self._allowed else 1)
                due = max(due, time.monotonic() - BEHIND_S)
                self._producer.poll(0)
                time.sleep(max(0.0, due - time.monotonic()))
        self._producer.flush()

    def _produce(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
                return
            except BufferError:  # the broker is away: wait for it
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused.append(error.str())
            return
        self.acknowledged += 1
        partition, offset = message.partition(), message.offset()
        if partition is not None and offset is not None:  # a retry that the broker knew already has no offset
            self.ends[partition] = max(self.ends.get(partition, 0), offset + 1)

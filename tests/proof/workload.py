"""The workload of the proof: events as a client would send them, with retries and poison, all from one seed.

It makes JSON by hand and shares no code with `streams`, so a mistake there cannot hide itself.
"""

import json
import random
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer

TYPES = ("view", "click", "purchase", "rate", "impression")
START_US = 1_780_000_000_000_000
STEP_US = 40_000
POISON = (
    b"",
    b"not json",
    b'{"event_id": "half',
    b"[1, 2, 3]",
    b'{"x":' + b"[" * 5_000,
    b'{"event_id":"p","user_id":"u1","item_id":"i1","type":"NO TYPE","event_time":1,"arrival":1}',
    b'{"event_id":"p","user_id":"someone else","item_id":"i1","type":"view","event_time":1,"arrival":1}',
    b'{"event_id":"p","user_id":"u1","item_id":"i1","type":"view","event_time":99999999999999999999,"arrival":99999999999999999999}',
)


def records(
    count: int, seed: int, *, users: int, items: int, duplicates: float = 0.0, poison: float = 0.0
) -> Iterator[tuple[bytes, bytes]]:
    """`count` pairs (key, value): users and items by Zipf's law, times up to 2 minutes out of order.

    `duplicates` is the share of retries: the same bytes again, a little later. `poison` is the share of records that
    no fold may apply.
    """
    rnd = random.Random(seed)
    sent: list[tuple[bytes, bytes]] = []
    for i in range(count):
        if sent and rnd.random() < duplicates:
            yield sent[rnd.randrange(len(sent))]
            continue
        user_id = f"u{int(users ** rnd.random())}"
        if rnd.random() < poison:
            yield user_id.encode(), rnd.choice(POISON)
            continue
        at = START_US + i * STEP_US
        kind = rnd.choices(TYPES, (60, 20, 5, 10, 5))[0]
        event: dict[str, object] = {
            "event_id": f"{seed}-{i}",
            "user_id": user_id,
            "item_id": f"i{int(items ** rnd.random())}",
            "type": kind,
            "event_time": at - rnd.randrange(120_000_000),
            "arrival": at,
            "categories": [f"c{rnd.randrange(18)}" for _ in range(rnd.randrange(3))],
        }
        if kind in ("purchase", "rate"):
            event["value"] = rnd.randrange(1, 500) / 100
        record = user_id.encode(), json.dumps(event).encode()
        sent.append(record)
        if len(sent) > 2_000:
            del sent[:1_000]
        yield record


async def produce(bootstrap: str, topic: str, pairs: Iterator[tuple[bytes, bytes]]) -> int:
    """Send all, acknowledged, as a client does: idempotent, not transactional. Returns how many."""
    count = 0
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", linger_ms=5, max_batch_size=262_144
    ) as producer:
        futures = []
        for key, value in pairs:
            futures.append(await producer.send(topic, value, key))
            count += 1
        for future in futures:
            await future
    return count

"""Waits until the line is quiet: every event and delta folded, every row in Redis."""

import time
from collections.abc import Callable
from contextlib import closing

from redis import Redis

from freshet.settings import Settings
from monitoring import raw
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES

Progress = Callable[[str, int, int | None], None]
"""(label, done, total)"""
LOOK_S = 0.5
LOOKS = 2
"""Quiet is what so many looks in a row see: a transaction's marks reach its topics one after another."""


class NotQuiet(RuntimeError):
    """The line has not come to rest. Its text says what still moves."""


def left(settings: Settings) -> dict[str, int]:
    """What is not done yet at the first stage that has anything to do: records by where they wait. Empty when quiet.

    Behind the first stage the figures are offsets, of which some are transactions' marks: they say how much about.
    """
    ends = raw.bounds(settings, EVENTS)
    users = raw.metas(settings, USER_FEATURES)
    folded = {p: users[p]["next_offset"] if p in users else first for p, (first, _) in ends.items()}
    if waiting := {f"{EVENTS} {p}": end - folded[p] for p, (_, end) in ends.items() if end > folded[p]}:
        return waiting
    items = raw.metas(settings, ITEM_FEATURES)
    if waiting := _behind(settings, ITEM_DELTAS, {p: items[p]["next_offset"] if p in items else 0 for p in ends}):
        return waiting
    with Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5) as client:
        for topic in (USER_FEATURES, ITEM_FEATURES):
            stored = {int(p): int(o) for p, o in client.hgetall(f"freshet:progress:{settings.topic(topic)}").items()}
            if waiting := _behind(settings, topic, stored):
                return {f"{name} in Redis": n for name, n in waiting.items()}
    return {}


def _behind(settings: Settings, topic: str, done: dict[int, int]) -> dict[str, int]:
    """Partitions of a topic with offsets beyond `done`, if any of them is a record and not a transaction's mark."""
    with closing(raw.read(settings, topic, done)) as records:
        if next(records, None) is None:
            return {}
    ends = ((p, end - done.get(p, first)) for p, (first, end) in raw.bounds(settings, topic).items())
    return {f"{topic} {p}": n for p, n in ends if n > 0}


def wait(settings: Settings, limit_s: float, progress: Progress) -> None:
    """Return when all is quiet. Raises `NotQuiet` after `limit_s`."""
    give_up, looks, most = time.monotonic() + limit_s, 0, 0
    while True:
        waiting = left(settings)
        looks = 0 if waiting else looks + 1
        behind = sum(waiting.values())
        most = max(most, behind)
        progress("waiting for the line to be quiet", most - behind, most)
        if looks >= LOOKS:
            return
        if time.monotonic() > give_up:
            where = ", ".join(f"{n:,} records of {name}" for name, n in sorted(waiting.items()))
            raise NotQuiet(
                f"after {limit_s:.0f} s still waiting for {where or 'a second quiet look'}: stop the senders, see "
                "`freshet status` for the worker and the sinks, or give it longer with --wait"
            )
        time.sleep(LOOK_S)

"""Waits until the line is quiet: every event folded, every delta merged, every row in Redis."""

import time
from collections.abc import Callable

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
    """What is not done yet: records by where they wait. Empty when all is quiet."""
    waiting: dict[str, int] = {}
    ends = raw.bounds(settings, EVENTS)
    users = raw.metas(settings, USER_FEATURES)
    for p, (first, end) in ends.items():
        unfolded = end - (users[p]["next_offset"] if p in users else first)
        if unfolded:
            waiting[f"{EVENTS} {p}"] = unfolded
    items = raw.metas(settings, ITEM_FEATURES)
    # Transactions leave marks behind the last record, so offsets alone do not tell whether a delta waits.
    for p, _ in raw.read(settings, ITEM_DELTAS, {p: items[p]["next_offset"] if p in items else 0 for p in ends}):
        waiting[f"{ITEM_DELTAS} {p}"] = waiting.get(f"{ITEM_DELTAS} {p}", 0) + 1
    with Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5) as client:
        for topic in (USER_FEATURES, ITEM_FEATURES):
            stored = {int(p): int(o) for p, o in client.hgetall(f"freshet:progress:{settings.topic(topic)}").items()}
            for p, _ in raw.read(settings, topic, stored):
                waiting[f"{topic} {p} in Redis"] = waiting.get(f"{topic} {p} in Redis", 0) + 1
    return waiting


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

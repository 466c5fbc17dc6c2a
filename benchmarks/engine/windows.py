"""The peers' job on Freshet's engine: counts and sums of each user and type over windows of 5 minutes and of an hour.

`faust -A benchmarks.engine.windows worker`, started by `benchmarks.engine.peers`. What a user of the engine writes: a
profile, and a fold that says what a record does.
"""

import gc
from collections.abc import Iterable, Iterator

import mode.loop

from freshet.settings import get_settings
from streams.aggregates import HOUR, TILE, Count, Sum, on
from streams.engine.instance import named
from streams.engine.stage import Stage
from streams.events import Event, decode
from streams.fold.records import Record
from streams.fold.states import Gap, ProfileFold
from streams.profiles import Profile
from streams.topics import EVENTS
from streams.worker import create_app

TYPES = ("view", "click", "cart", "purchase")
OUT = "windows"
activity = Profile(
    "activity",
    key="user_id",
    features=[
        made
        for kind in TYPES
        for made in (
            Count(kind, of=on(kind), windows=["12h", "24h"]),  # kept in tiles of 5 minutes, and of an hour
            Sum(f"{kind}_value", of=on(kind), windows=["12h", "24h"]),
        )
    ],
)


class WindowFold(ProfileFold[Profile]):
    """`events` of one partition into one row a user, which holds all its windows."""

    source, log = EVENTS, OUT

    def __init__(self, partition: int) -> None:
        super().__init__(activity, partition)

    def fold_plainly(self, records: Iterable[Record]) -> None:
        meta = self.meta
        touched: dict[bytes, list[Event]] = {}
        for offset, key, value in records:
            if offset != meta.next_offset:
                self.begin(offset)
                if offset != meta.next_offset:
                    raise Gap(f"expected {meta.next_offset}, got {offset}")
            meta.next_offset = offset + 1
            event = decode(value or b"")
            mine = touched.get(key or b"")
            if mine is None:
                touched[key or b""] = [event]
            else:
                mine.append(event)
        for key, events in touched.items():
            self._advance(key, self.rows.get(key), events, meta.next_offset - 1)


def cells(row: bytes) -> Iterator[tuple[str, int, int, int, float]]:
    """(type, window in seconds, its start in milliseconds, count, sum) of every window that a row holds."""
    slots = [
        feature.unpack(data) if data else None
        for feature, data in zip(activity.features, activity.decode(row).part.packed, strict=True)
    ]
    for kind, counts, sums in zip(TYPES, slots[::2], slots[1::2], strict=True):
        if counts is not None and sums is not None:
            for size, (tiles, numbers), (_, totals) in zip((TILE, HOUR), counts, sums, strict=True):
                for tile, number, total in zip(tiles, numbers, totals, strict=True):
                    yield kind, size // 1_000_000, tile * size // 1_000, number, total / 1_000_000


mode.loop.use("uvloop")
gc.set_threshold(100_000, 50, 100)
settings = named(get_settings())
app = create_app(settings, (Stage(settings, EVENTS, OUT, WindowFold),))

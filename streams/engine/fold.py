"""The pure fold of one source partition: records in, rows in memory, a snapshot of what changed out.

No Kafka and no asyncio here: the agents and the backfill run these same classes, and the law tests run them alone.
`UserFold` folds `events`, `ItemFold` folds `item-deltas`. Where a snapshot is written is left to the agents.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Self

from feature_repo.features import item, user
from freshet.settings import Settings
from streams.aggregates import hash64
from streams.engine import deltas
from streams.engine.records import Record
from streams.engine.ring import KEY as RING_KEY
from streams.engine.ring import Ring
from streams.engine.states import Fold, Gap, ProfileFold
from streams.events import BadEvent, Event, Micros, decode
from streams.profiles import Profile, newest_of
from streams.tiled import TiledProfile
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES, partition_of

M64 = (1 << 64) - 1

__all__ = ["Fold", "Gap", "ItemFold", "UserFold"]


@lru_cache(maxsize=1 << 17)
def _partition_of(item_id: str, partitions: int) -> int:
    return partition_of(item_id.encode(), partitions)


class _Touched:
    """A key's row, the events that some records bring to it, and the time of its newest event with them."""

    __slots__ = ("events", "newest", "row", "version")

    def __init__(self, row: bytes | None, newest: Micros) -> None:
        self.events: list[Event] = []
        self.row, self.newest, self.version = row, newest, -1


class UserFold(ProfileFold[Profile]):
    """`events` of one partition into user rows, and the events that were applied into deltas for the items.

    `partitions` is the number of partitions of `events`: a new user whose key belongs to another one is refused, as it
    would else have two states.
    """

    source, log = EVENTS, USER_FEATURES

    def __init__(self, partition: int, dedup_window: int, tolerance_us: Micros, *, partitions: int) -> None:
        super().__init__(user, partition)
        self.ring = Ring(dedup_window)
        self.tolerance_us, self.partitions = tolerance_us, partitions
        self.applied: list[Event] = []
        """Since the last snapshot, in their order."""

    @classmethod
    def of(cls, settings: Settings, partition: int) -> Self:
        """The fold that the worker runs for a partition; a backfill must run the same."""
        tolerance_us = settings.future_tolerance_s * 1_000_000
        return cls(partition, settings.dedup_window, tolerance_us, partitions=settings.partitions)

    def fold(self, records: Iterable[Record]) -> None:
        """Offsets must be contiguous: producers of `events` are idempotent and not transactional."""
        meta, ring, seen, tolerance, late = self.meta, self.ring, self.ring.seen, self.tolerance_us, self.profile.late
        touched: dict[bytes, _Touched] = {}
        for record in records:
            offset, key, value = record
            if offset != meta.next_offset:
                self.begin(offset)
                if offset != meta.next_offset:
                    raise Gap(f"{self.source} partition {self.partition}: expected {meta.next_offset}, got {offset}")
            meta.next_offset = offset + 1
            try:
                event = decode(value or b"", tolerance)
            except BadEvent as error:
                self._reject(record, str(error))
                continue
            if key != event.user_id.encode():
                self._reject(record, "the record's key is not the event's user_id; producers must key by user_id")
                continue
            hashed = hash64(event.event_id)
            if hashed in seen:
                meta.duplicate += 1
                continue
            mine = touched.get(key)
            if mine is None:
                row = self.rows.get(key)
                if row is None and partition_of(key, self.partitions) != self.partition:
                    self._reject(
                        record, "the key belongs to another partition; producers must use the murmur2 partitioner"
                    )
                    continue
                mine = touched[key] = _Touched(row, newest_of(row))
            at = event.event_time
            if late(at, mine.newest):
                meta.late += 1
                continue
            if at > mine.newest:
                mine.newest = at
            ring.add(hashed)
            meta.applied += 1
            meta.fingerprint = (meta.fingerprint + hashed) & M64
            mine.events.append(event)
            mine.version = offset
            self.applied.append(event)
        for key, mine in touched.items():
            if mine.events:
                self._advance(key, mine.row, mine.events, mine.version)

    def _take_deltas(self) -> list[tuple[int, bytes]]:
        applied, self.applied = self.applied, []
        targets: dict[int, list[Event]] = defaultdict(list)
        for event in applied:
            targets[_partition_of(event.item_id, self.partitions)].append(event)
        records, passed = [], self.meta.passed
        for target, events in targets.items():
            first = passed.get(target, 0)
            records += [(target, data) for data in deltas.encode(self.partition, first, events)]
            passed[target] = first + len(events)
        return records

    def _own_records(self) -> list[tuple[bytes, bytes | None]]:
        return list(self.ring.records())

    def _load_record(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(RING_KEY):
            self.ring.load(key, value)

    def loaded(self) -> None:
        """Raises `BadRing` when the ring does not match the meta record."""
        self.ring.loaded(self.meta.applied)


class ItemFold(ProfileFold[TiledProfile]):
    """`item-deltas` of one partition into item rows. `meta.applied` counts events; none is late or a duplicate.

    Transactions leave marks in a topic, so its offsets rise without being contiguous; the deltas' own numbers are.
    """

    source, log = ITEM_DELTAS, ITEM_FEATURES

    def __init__(self, partition: int) -> None:
        super().__init__(item, partition)

    def fold(self, records: Iterable[Record]) -> None:
        """The offset of a delta becomes the version of the rows that it changes."""
        meta, here = self.meta, f"{self.source} partition {self.partition}"
        touched: dict[bytes, _Touched] = {}
        for record in records:
            offset, _, value = record
            if offset < meta.next_offset:
                raise Gap(f"{here}: offset {offset} came after {meta.next_offset - 1}")
            self.begin(offset)
            meta.next_offset = offset + 1
            try:
                delta = deltas.decode(value or b"")
            except deltas.BadDelta as error:
                self._reject(record, str(error))
                continue
            had = meta.passed.get(delta.source, 0)
            if delta.first != had:
                raise Gap(f"{here}: expected event {had} of {EVENTS} partition {delta.source}, got {delta.first}")
            meta.passed[delta.source] = had + len(delta.events)
            meta.applied += len(delta.events)
            for event in delta.events:
                key = event.item_id.encode()
                mine = touched.get(key)
                if mine is None:
                    mine = touched[key] = _Touched(self.rows.get(key), 0)
                mine.events.append(event)
                mine.version = offset
        for key, mine in touched.items():
            self._advance(key, mine.row, mine.events, mine.version)

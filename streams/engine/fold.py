"""The pure fold of one source partition: records in, rows in memory, a snapshot of what changed out.

No Kafka and no asyncio here: the agents and the backfill run these same classes, and the law tests run them alone.
`UserFold` folds `events`, `ItemFold` folds `item-deltas`. Where a snapshot is written is left to the agents.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from feature_repo.features import item, user
from freshet.settings import Settings
from streams.aggregates import hash64
from streams.engine import deltas
from streams.engine.records import ROW_MAX, Record
from streams.engine.ring import KEY as RING_KEY
from streams.engine.ring import Ring
from streams.engine.states import Fold, Gap, ProfileFold
from streams.events import BadEvent, Event, Micros, decode
from streams.profiles import Profile, newest_of
from streams.tiled import TiledProfile
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES, partition_of

if TYPE_CHECKING:
    from streams.kernel import Users

M64 = (1 << 64) - 1

__all__ = ["Fold", "Gap", "ItemFold", "UserFold"]


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
    _compiled: "Users | None" = None

    def __init__(self, partition: int, dedup_window: int, tolerance_us: Micros, *, partitions: int) -> None:
        super().__init__(user, partition)
        self.ring = Ring(dedup_window)
        self.tolerance_us, self.partitions = tolerance_us, partitions
        self._outbox = deltas.Outbox(partitions)
        if user.kernel is not None:
            self._compiled = user.kernel.users(partition, partitions, tolerance_us, user.lateness_us)

    @classmethod
    def of(cls, settings: Settings, partition: int) -> Self:
        """The fold that the worker runs for a partition; a backfill must run the same."""
        tolerance_us = settings.future_tolerance_s * 1_000_000
        return cls(partition, settings.dedup_window, tolerance_us, partitions=settings.partitions)

    def fold_plainly(self, records: Iterable[Record]) -> None:
        """Offsets must be contiguous: producers of `events` are idempotent and not transactional."""
        meta, ring, seen, late = self.meta, self.ring, self.ring.seen, self.profile.late
        touched: dict[bytes, _Touched] = {}
        for record in records:
            offset = record[0]
            if offset != meta.next_offset:
                self.expect(offset)
            meta.next_offset = offset + 1
            event = self.read(record)
            if event is None:
                continue
            hashed = hash64(event.event_id)
            if hashed in seen:
                meta.duplicate += 1
                continue
            key = event.user_id.encode()
            mine = touched.get(key)
            if mine is None:
                row = self.rows.get(key)
                if row is None and partition_of(key, self.partitions) != self.partition:
                    self.reject_foreign(record)
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
            self._outbox.add(event)
        for key, mine in touched.items():
            if mine.events:
                self._advance(key, mine.row, mine.events, mine.version)

    def expect(self, offset: int) -> None:
        """Raises `Gap` unless this is the next offset, or the first."""
        self.begin(offset)
        if offset != self.meta.next_offset:
            raise Gap(f"{self.source} partition {self.partition}: expected {self.meta.next_offset}, got {offset}")

    def read(self, record: Record) -> Event | None:
        """The event of a record; None where it is rejected."""
        try:
            event = decode(record[2] or b"", self.tolerance_us)
        except BadEvent as error:
            self._reject(record, str(error))
            return None
        if record[1] != event.user_id.encode():
            self._reject(record, "the record's key is not the event's user_id; producers must key by user_id")
            return None
        return event

    def reject_foreign(self, record: Record) -> None:
        """A new user who belongs to another partition."""
        self._reject(record, "the key belongs to another partition; producers must use the murmur2 partitioner")

    def _take_deltas(self) -> list[tuple[int, bytes]]:
        outbox = self._outbox if self._compiled is None else self._compiled.outbox
        return outbox.take(self.partition, self.meta.passed, ROW_MAX)

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
        if item.kernel is not None:
            self._compiled = item.kernel.items()

    def fold_plainly(self, records: Iterable[Record]) -> None:
        """The offset of a delta becomes the version of the rows that it changes."""
        touched: dict[bytes, _Touched] = {}
        for record in records:
            offset = record[0]
            self.expect(offset)
            self.meta.next_offset = offset + 1
            delta = self.read(record)
            if delta is None:
                continue
            self.take_up(delta.source, delta.first, len(delta.events))
            for event in delta.events:
                key = event.item_id.encode()
                mine = touched.get(key)
                if mine is None:
                    mine = touched[key] = _Touched(self.rows.get(key), 0)
                mine.events.append(event)
                mine.version = offset
        for key, mine in touched.items():
            self._advance(key, mine.row, mine.events, mine.version)

    def expect(self, offset: int) -> None:
        """Raises `Gap` for an offset that was passed."""
        if offset < self.meta.next_offset:
            raise Gap(f"{self._here}: offset {offset} came after {self.meta.next_offset - 1}")
        self.begin(offset)

    def read(self, record: Record) -> deltas.Delta | None:
        """The delta of a record; None where it is rejected."""
        try:
            return deltas.decode(record[2] or b"")
        except deltas.BadDelta as error:
            self._reject(record, str(error))
            return None

    def take_up(self, source: int, first: int, count: int) -> None:
        """Count a delta's events. Raises `Gap` where they do not follow the ones before."""
        had = self.meta.passed.get(source, 0)
        if first != had:
            raise Gap(f"{self._here}: expected event {had} of {EVENTS} partition {source}, got {first}")
        self.meta.passed[source] = had + count
        self.meta.applied += count

    @property
    def _here(self) -> str:
        return f"{self.source} partition {self.partition}"

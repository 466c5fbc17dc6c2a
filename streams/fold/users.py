"""The fold of `events`: user rows, and the events that were applied as deltas for the items."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from feature_repo.features import user
from freshet.settings import Settings
from streams.aggregates import hash64
from streams.events import BadEvent, Event, Micros, decode
from streams.fold import deltas
from streams.fold.records import ROW_MAX, Record
from streams.fold.ring import KEY as RING_KEY
from streams.fold.ring import Ring
from streams.fold.states import Gap, ProfileFold, Touched
from streams.profiles import Profile, newest_of
from streams.topics import EVENTS, USER_FEATURES, partition_of

if TYPE_CHECKING:
    from streams.kernel import Users

M64 = (1 << 64) - 1


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
        touched: dict[bytes, Touched] = {}
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
                mine = touched[key] = Touched(row, newest_of(row))
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

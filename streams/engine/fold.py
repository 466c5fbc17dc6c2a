"""The pure fold of one source partition: records in, states in memory, a snapshot of what changed out.

No Kafka and no asyncio here: the agents and the backfill run these same classes, and the law tests run them alone.
`UserFold` folds `events`, `ItemFold` folds `item-deltas`. Where a snapshot is written is left to the agents.
"""

from collections.abc import Callable, Iterable
from typing import Self

from feature_repo.features import item, user
from freshet.settings import Settings
from streams.aggregates import hash64
from streams.engine.records import ROW_MAX, DeadLetter, Record, Row
from streams.engine.ring import KEY as RING_KEY
from streams.engine.ring import Ring
from streams.engine.states import Fold, Gap
from streams.events import BadEvent, Event, Micros, decode
from streams.profiles import BadState, Profile, State, TiledProfile, is_meta_key
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES, partition_of

DELTA_TILES = 256
"""A partial state of an item is cut at this many tiles, so that a replay of years does not make one record of them."""
M64 = (1 << 64) - 1

__all__ = ["Fold", "Gap", "ItemFold", "UserFold"]


class UserFold(Fold[Profile]):
    """`events` of one partition into user states and partial item states.

    `on_applied(event, state)` is called after each applied event with the user's state at that version (the backfill
    writes it down). `partitions`, where given, is the number of partitions of `events`: a new user whose key belongs
    to another one is refused, as it would else have two states.
    """

    source, log = EVENTS, USER_FEATURES

    def __init__(
        self,
        partition: int,
        dedup_window: int,
        tolerance_us: Micros,
        *,
        partitions: int | None = None,
        on_applied: Callable[[Event, State], None] | None = None,
    ) -> None:
        super().__init__(user, partition)
        self.ring = Ring(dedup_window)
        self.tolerance_us, self.partitions, self.on_applied = tolerance_us, partitions, on_applied
        self._deltas: dict[str, State] = {}
        self._full_deltas: list[tuple[str, State]] = []

    @classmethod
    def of(cls, settings: Settings, partition: int, on_applied: Callable[[Event, State], None] | None = None) -> Self:
        """The fold that the worker runs for a partition; a backfill must run the same."""
        return cls(
            partition,
            settings.dedup_window,
            settings.future_tolerance_s * 1_000_000,
            partitions=settings.partitions,
            on_applied=on_applied,
        )

    def fold(self, records: Iterable[Record]) -> None:
        """Offsets must be contiguous: producers of `events` are idempotent and not transactional."""
        meta, ring, seen, dirty, hot = self.meta, self.ring, self.ring.seen, self.dirty, self.hot
        update, tolerance, applied_hook = self.profile.update, self.tolerance_us, self.on_applied
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
            state = hot.get(key)
            if state is None:
                if key not in self.cold and self._misplaced(key):
                    self._reject(
                        record, "the key belongs to another partition; producers must use the murmur2 partitioner"
                    )
                    continue
                state = self._state(key)
            if not update(state, event):
                meta.late += 1
                continue
            ring.add(hashed)
            meta.applied += 1
            meta.fingerprint = (meta.fingerprint + hashed) & M64
            state.version = offset
            dirty[key] = state
            self._count_item(event, offset)
            if applied_hook is not None:
                applied_hook(event, state)

    def _misplaced(self, key: bytes) -> bool:
        return self.partitions is not None and partition_of(key, self.partitions) != self.partition

    def _count_item(self, event: Event, offset: int) -> None:
        delta = self._deltas.get(event.item_id)
        if delta is None:
            delta = self._deltas[event.item_id] = item.new()
        item.update(delta, event)
        delta.version = offset
        if len(delta.tiles) >= DELTA_TILES:
            self._full_deltas.append((event.item_id, self._deltas.pop(event.item_id)))

    def _take_deltas(self) -> list[tuple[bytes, bytes]]:
        taken, self._deltas, self._full_deltas = [*self._full_deltas, *self._deltas.items()], {}, []
        deltas = []
        for item_id, delta in taken:
            data = item.encode(delta)
            if len(data) > ROW_MAX:
                reason = (
                    f"{len(data)} bytes of these events do not fit into a record; the item's state goes without them"
                )
                self.rejected.append(
                    DeadLetter.of(ITEM_DELTAS, self.partition, delta.version, reason, item_id.encode(), None)
                )
            else:
                deltas.append((item_id.encode(), data))
        return deltas

    def _own_records(self) -> list[Row]:
        return list(self.ring.records())

    def _load_record(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(RING_KEY):
            self.ring.load(key, value)

    def loaded(self) -> None:
        """Raises `BadRing` when the ring does not match the meta record."""
        self.ring.loaded(self.meta.applied)


class ItemFold(Fold[TiledProfile]):
    """`item-deltas` of one partition into item states. `meta.applied` counts the deltas; none is late or a duplicate.

    Transactions leave marks in a topic, so its offsets rise without being contiguous.
    """

    source, log = ITEM_DELTAS, ITEM_FEATURES

    def __init__(self, partition: int) -> None:
        super().__init__(item, partition)

    def fold(self, records: Iterable[Record]) -> None:
        """The record's offset becomes the version of the item's state."""
        meta, profile, dirty = self.meta, self.profile, self.dirty
        for record in records:
            offset, key, value = record
            if offset < meta.next_offset:
                raise Gap(
                    f"{self.source} partition {self.partition}: offset {offset} came after {meta.next_offset - 1}"
                )
            self.begin(offset)
            meta.next_offset = offset + 1
            try:
                delta = profile.thaw(profile.decode(value or b""))
            except BadState as error:
                self._reject(record, str(error))
                continue
            if not key or is_meta_key(key):
                self._reject(record, "the record has no item_id as its key")
                continue
            state = self._state(key)
            profile.merge(state, delta)
            state.version = offset
            dirty[key] = state
            meta.applied += 1

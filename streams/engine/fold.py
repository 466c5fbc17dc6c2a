"""The pure fold of one source partition: records in, states and counts in memory, a snapshot of what changed out.

No Kafka and no asyncio here: the agents and the backfill run these same classes, and the law tests run them alone.
`UserFold` folds `events`, `ItemFold` folds `item-deltas`. Where a snapshot is written is left to the agents.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import msgspec

from feature_repo.features import item, user
from freshet.settings import Settings
from streams.aggregates import hash64
from streams.engine.ring import KEY as RING_KEY
from streams.engine.ring import Ring
from streams.events import BadEvent, Event, Micros, decode
from streams.profiles import BadState, Profile, State, TiledProfile, is_meta_key
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES, partition_of

META_KEY = b"\0meta"
ROW_MAX = 900_000
"""Bytes of the largest row: it must fit into one batch of the topic (1 MiB) with its key and Kafka's framing."""
DEAD_VALUE_MAX = 512 * 1024
"""A dead letter quotes values up to this size; base64 makes a third more of it, and it must fit into a batch too."""
DELTA_TILES = 256
"""A partial state of an item is cut at this many tiles, so that a replay of years does not make one record of them."""
M64 = (1 << 64) - 1

P = TypeVar("P", bound=Profile)

Record = tuple[int, bytes | None, bytes | None]
"""(offset, key, value) as it is in Kafka or in the archive."""
Row = tuple[bytes, bytes | None]
"""(key, value) to write; None deletes."""


class Gap(RuntimeError):
    """Records are missing between the offset that the state expects and the one that came."""


class Meta(msgspec.Struct):
    """How far a state has come. JSON under `META_KEY`, written by the same transaction as the rows.

    `next_offset` is the first offset that is not folded yet (-1: nothing was ever read), `start_offset` the first that
    was. For `events`: applied + late + duplicate + rejected = next_offset - start_offset. `fingerprint` is the sum of
    the applied ids' 64-bit hashes, modulo 2**64.
    """

    start_offset: int = -1
    next_offset: int = -1
    applied: int = 0
    late: int = 0
    duplicate: int = 0
    rejected: int = 0
    fingerprint: int = 0


class DeadLetter(msgspec.Struct):
    """A record that cannot be folded (or a row that cannot be written), with the reason. Bytes are base64 in JSON."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    value_bytes: int

    @classmethod
    def of(cls, topic: str, partition: int, offset: int, reason: str, key: bytes | None, value: bytes | None) -> Self:
        """A letter that fits into a batch: a value that is too large is left out, its size stays."""
        size = len(value) if value is not None else 0
        return cls(topic, partition, offset, reason, key, value if size <= DEAD_VALUE_MAX else None, size)


encode_json = msgspec.json.Encoder().encode
decode_meta = msgspec.json.Decoder(Meta).decode


@dataclass(frozen=True)
class Snapshot:
    """All that changed since the last one. `rows` are states, `records` the engine's own (meta, ring)."""

    rows: list[tuple[bytes, bytes]]
    records: list[Row]
    deltas: list[tuple[bytes, bytes]]
    rejected: list[DeadLetter]
    next_offset: int


class Fold(ABC, Generic[P]):
    """States by key: `hot` ones decoded (touched since the last snapshot), all others `cold`, as their rows."""

    source: str
    """Logical name of the topic that is folded."""
    log: str
    """Logical name of the topic that the rows go to, and are restored from."""

    def __init__(self, profile: P, partition: int) -> None:
        self.profile, self.partition = profile, partition
        self.meta = Meta()
        self.cold: dict[bytes, bytes] = {}
        self.hot: dict[bytes, State] = {}
        self.dirty: dict[bytes, State] = {}
        self.rejected: list[DeadLetter] = []

    @abstractmethod
    def fold(self, records: Iterable[Record]) -> None:
        """Fold records in the order of their offsets, from `meta.next_offset` on. Raises `Gap`."""

    def load(self, key: bytes, value: bytes | None) -> None:
        """One record of the changelog, in its order."""
        if key == META_KEY and value is not None:
            self.meta = decode_meta(value)
        elif is_meta_key(key):
            self._load_record(key, value)
        elif value is None:
            self.cold.pop(key, None)
        else:
            self.cold[key] = value

    def _load_record(self, key: bytes, value: bytes | None) -> None:
        """One of the stage's own records."""

    def loaded(self) -> None:
        """All records are loaded: check them against each other."""

    def snapshot(self) -> Snapshot:
        """What changed, as a consistent cut at `meta.next_offset`. Synchronous; the rows become the cold states."""
        dirty, self.dirty = self.dirty, {}
        cold, encode = self.cold, self.profile.encode
        rows: list[tuple[bytes, bytes]] = []
        refused: list[bytes] = []
        for key, state in dirty.items():
            row = encode(state)
            if len(row) > ROW_MAX:
                refused.append(key)
                self._refuse(key, state, len(row))
            else:
                cold[key] = row
                rows.append((key, row))
        for key in refused:
            del dirty[key]
        self.hot = dirty
        deltas = self._take_deltas()
        records = [*self._own_records(), (META_KEY, encode_json(self.meta))]
        rejected, self.rejected = self.rejected, []
        return Snapshot(rows, records, deltas, rejected, self.meta.next_offset)

    def _refuse(self, key: bytes, state: State, size: int) -> None:
        """A state that no batch can carry goes back to its last row: stopping would stop every key of the partition."""
        reason = f"the state has {size} bytes, at most {ROW_MAX} fit into a record; it stays at its last row and these events are not in it"
        self.rejected.append(DeadLetter.of(self.log, self.partition, state.version, reason, key, None))

    def _take_deltas(self) -> list[tuple[bytes, bytes]]:
        return []

    def _own_records(self) -> list[Row]:
        return []

    def _state(self, key: bytes) -> State:
        """The decoded state of a key, made hot."""
        state = self.hot.get(key)
        if state is None:
            row = self.cold.get(key)
            state = self.hot[key] = self.profile.new() if row is None else self.profile.decode(row)
        return state

    def _reject(self, record: Record, reason: str) -> None:
        offset, key, value = record
        self.rejected.append(DeadLetter.of(self.source, self.partition, offset, reason, key, value))
        self.meta.rejected += 1


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
        return cls(partition, settings.dedup_window, settings.future_tolerance_s * 1_000_000, partitions=settings.partitions, on_applied=on_applied)

    def fold(self, records: Iterable[Record]) -> None:
        """Offsets must be contiguous: producers of `events` are idempotent and not transactional."""
        meta, ring, seen, dirty, hot = self.meta, self.ring, self.ring.seen, self.dirty, self.hot
        update, tolerance, applied_hook = self.profile.update, self.tolerance_us, self.on_applied
        for record in records:
            offset, key, value = record
            if offset != meta.next_offset:
                self._first(offset)
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
                    self._reject(record, "the key belongs to another partition; producers must use the murmur2 partitioner")
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

    def _first(self, offset: int) -> None:
        if self.meta.next_offset >= 0:
            raise Gap(f"{self.source} partition {self.partition}: the state expects offset {self.meta.next_offset}, the next record has {offset}")
        self.meta.start_offset = offset

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
                reason = f"the item's partial state has {len(data)} bytes, at most {ROW_MAX} fit into a record; these events are not in the item's state"
                self.rejected.append(DeadLetter.of(ITEM_DELTAS, self.partition, delta.version, reason, item_id.encode(), None))
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
                raise Gap(f"{self.source} partition {self.partition}: offset {offset} came after {meta.next_offset - 1}")
            if meta.next_offset < 0:
                meta.start_offset = offset
            meta.next_offset = offset + 1
            try:
                delta = profile.decode(value or b"")
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

"""The states of one source partition in memory: hot and cold ones, what has changed, how they are restored.

What a record does to a state is left to the subclasses in `streams.engine.fold`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from streams.engine.records import META_KEY, ROW_MAX, DeadLetter, Meta, Record, Row, Snapshot, decode_meta, encode_json
from streams.profiles import Profile, State, is_meta_key

P = TypeVar("P", bound=Profile)


class Gap(RuntimeError):
    """Records are missing between the offset that the state expects and the one that came."""


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

    def begin(self, offset: int) -> None:
        """Where a partition that was never folded begins: a first record beyond it is a gap, too."""
        if self.meta.next_offset < 0:
            self.meta.start_offset = self.meta.next_offset = offset

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
        reason = f"a state of {size} bytes does not fit into a record; it stays at its last row, without these events"
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

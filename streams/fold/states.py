"""The states of one source partition: how they are loaded, folded and cut.

What a record does to a state is left to the subclasses in `streams.fold.users` and `streams.fold.items`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from streams.events import Event, Micros
from streams.fold.records import (
    META_KEY,
    ROW_MAX,
    DeadLetter,
    Meta,
    Own,
    Record,
    State,
    decode_meta,
    encode_json,
)
from streams.fold.rows import Rows, TakenRows
from streams.profiles import BadState, Profile

if TYPE_CHECKING:
    from streams.kernel import Items, Users

P = TypeVar("P", bound=Profile)


@dataclass(frozen=True)
class Snapshot:
    """All that changed since the last one.

    `rows` are states, `records` the engine's own (meta, ring), `deltas` go to a partition of the next stage each.
    """

    rows: TakenRows
    records: list[tuple[bytes, bytes | None]]
    deltas: list[tuple[int, bytes]]
    rejected: list[DeadLetter]
    next_offset: int


class Gap(RuntimeError):
    """Records are missing between what the state expects and what came."""


class Touched:
    """A key's row, the events that some records bring to it, and the time of its newest event with them."""

    __slots__ = ("events", "newest", "row", "version")

    def __init__(self, row: bytes | None, newest: Micros) -> None:
        self.events: list[Event] = []
        self.row, self.newest, self.version = row, newest, -1


class Fold(ABC):
    """`rows`: the state of every key."""

    source: str
    """Logical name of the topic that is folded."""
    log: str
    """Logical name of the topic that the rows go to, and are restored from."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.meta = Meta()
        self.rows = Rows()
        self.rejected: list[DeadLetter] = []

    @abstractmethod
    def fold(self, records: Iterable[Record]) -> None:
        """Fold records in the order of their offsets, from `meta.next_offset` on. Raises `Gap`."""

    def load(self, records: Collection[State]) -> None:
        """Records of the changelog, in their order."""
        self.load_own(self.rows.load(records))

    def load_own(self, own: Own) -> None:
        """The engine's own records among them."""
        for key, value in own.items():
            if key == META_KEY and value is not None:
                self.meta = decode_meta(value)
            else:
                self._load_record(key, value)

    def _load_record(self, key: bytes, value: bytes | None) -> None:  # noqa: B027 (most have none)
        """One of the stage's own records."""

    def loaded(self) -> None:  # noqa: B027 (most need none)
        """All records are loaded: check them against each other."""

    def begin(self, offset: int) -> None:
        """Where a partition that was never folded begins: a first record beyond it is a gap, too."""
        if self.meta.next_offset < 0:
            self.meta.start_offset = self.meta.next_offset = offset

    def snapshot(self) -> Snapshot:
        """What changed, as a consistent cut at `meta.next_offset`. Synchronous."""
        rows = self.rows.take()
        deltas = self._take_deltas()
        records = [*self._own_records(), (META_KEY, encode_json(self.meta))]
        rejected, self.rejected = self.rejected, []
        return Snapshot(rows, records, deltas, rejected, self.meta.next_offset)

    def _take_deltas(self) -> list[tuple[int, bytes]]:
        return []

    def _own_records(self) -> list[tuple[bytes, bytes | None]]:
        return []

    def _reject(self, record: Record, reason: str) -> None:
        offset, key, value = record
        self.rejected.append(DeadLetter.of(self.source, self.partition, offset, reason, key, value))
        self.meta.rejected += 1


class ProfileFold(Fold, Generic[P]):
    """A fold whose rows are states of a profile. Where its profile is compiled, `_compiled` does `fold_plainly`."""

    _compiled: "Users | Items | None" = None

    def __init__(self, profile: P, partition: int) -> None:
        super().__init__(partition)
        self.profile = profile

    def fold(self, records: Iterable[Record]) -> None:
        if self._compiled is None:
            self.fold_plainly(records)
            return
        try:
            self._compiled.fold(self, list(records), ROW_MAX)
        except ValueError as error:
            raise BadState(f"a state of profile {self.profile.name!r} does not decode: {error}") from error

    @abstractmethod
    def fold_plainly(self, records: Iterable[Record]) -> None:
        """What `fold` does, in Python: the definition, and the way where nothing was compiled."""

    def _advance(self, key: bytes, row: bytes | None, events: Sequence[Event], version: int) -> None:
        """Fold events of a key with that row."""
        after = self.profile.advance(row, events, version)
        if len(after) > ROW_MAX:
            self.too_large(key, version, len(after))
        else:
            self.rows.set(key, after)

    def too_large(self, key: bytes, version: int, size: int) -> None:
        """A state that no batch can carry stays as it was: stopping would stop every key."""
        reason = f"a state of {size} bytes does not fit into a record; it stays without these events"
        self.rejected.append(DeadLetter.of(self.log, self.partition, version, reason, key, None))

"""A fold of one partition on keyed state: a batch of records in, the records that it writes out, both as bytes.

Everything lasting is in the state when a step ends, so a checkpoint between any two steps is a consistent cut. What is
here beside it, the ring and the meta record in the fold, is read back when a partition is met for the first time.
"""

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Protocol

from freshet.settings import Settings
from streams.engine.owner import outputs
from streams.fold.records import Record
from streams.fold.rows import Heap, Rows, TakenRows
from streams.fold.states import Fold

_LONG, _INT = Struct(">q"), Struct(">i")
TEXT = "latin-1"
"""Any bytes are text in it, and the same bytes again."""
HELD = 50_000
"""Rows of a partition in memory, about 40 MB: to ask the state for one is a call into Java."""


class KeyedState(Protocol):
    """Flink's map state of the partition that a step is of. Keys are text, as Java compares arrays by identity."""

    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...
    def put_all(self, values: dict[str, bytes]) -> None: ...
    def remove(self, key: str) -> None: ...
    def items(self) -> Iterable[tuple[str, bytes]]: ...


class StateRows(Rows):
    """The rows of a partition where the state has them, and those that changed lately in memory, too."""

    def __init__(self, state: KeyedState) -> None:
        super().__init__()
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        row = self.held.get(key)
        return self._state.get(key.decode(TEXT)) if row is None else row

    def take(self) -> TakenRows:
        """What changed, which is in the state then."""
        changed = super().take()
        self._state.put_all({key.decode(TEXT): row for key, row in changed})
        if len(self.held) > HELD:
            self.held = Heap()
        return changed


class Step:
    """The folds of the partitions that come by. `own` has the engine's own records, `rows` all others."""

    def __init__(self, settings: Settings, make: Callable[[int], Fold], own: KeyedState, rows: KeyedState) -> None:
        self._settings, self._make, self._own, self._rows = settings, make, own, rows
        self._folds: dict[int, Fold] = {}

    def __call__(self, partition: int, batch: bytes) -> bytes:
        """Fold records that `Transport.Gather` packed; what to write, for `Transport.Scatter`. Raises `Gap`."""
        fold = self._folds.get(partition) or self._open(partition)
        fold.fold(unpack(batch))
        snapshot = fold.snapshot()
        for key, value in snapshot.records:
            if value is None:
                self._own.remove(key.decode(TEXT))
            else:
                self._own.put(key.decode(TEXT), value)
        (log, own), *others = outputs(self._settings, fold.log, partition, snapshot).items()
        written = ((log, [*snapshot.rows, *own]), *others)
        return pack((target.topic, target.partition, key, value) for target, rows in written for key, value in rows)

    def _open(self, partition: int) -> Fold:
        fold = self._folds[partition] = self._make(partition)
        fold.load([(key.encode(TEXT), value) for key, value in self._own.items()])
        fold.loaded()
        fold.rows = StateRows(self._rows)
        return fold


def unpack(batch: bytes) -> Iterator[Record]:
    """The records of a batch: for each its offset (64 bits), then key and value, each with its size (-1: null)."""
    at, end = 0, len(batch)
    while at < end:
        (offset,) = _LONG.unpack_from(batch, at)
        key, at = _field(batch, at + 8)
        value, at = _field(batch, at)
        yield offset, key, value


def _field(batch: bytes, at: int) -> tuple[bytes | None, int]:
    (size,) = _INT.unpack_from(batch, at)
    at += 4
    return (None, at) if size < 0 else (batch[at : at + size], at + size)


def pack(records: Iterable[tuple[str, int, bytes | None, bytes | None]]) -> bytes:
    """Records as bytes: for each its topic, with its size, its partition (32 bits), key and value as in `unpack`."""
    parts: list[bytes] = []
    for topic, partition, key, value in records:
        name = topic.encode()
        parts += (_INT.pack(len(name)), name, _INT.pack(partition))
        for field in (key, value):
            parts += (_INT.pack(-1),) if field is None else (_INT.pack(len(field)), field)
    return b"".join(parts)

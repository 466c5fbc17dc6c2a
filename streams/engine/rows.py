"""The rows of one partition by their keys: those used lately in memory, all as of the last checkpoint on disk.

Nothing leaves memory before a checkpoint holds it. Without a checkpoint all stay in memory.
"""

from collections.abc import Iterator, Mapping
from typing import Self

from freshet.settings import Settings
from streams.engine.checkpoint import Checkpoint
from streams.profiles import is_meta_key

ROW_OVERHEAD = 150
"""Bytes that a row takes beside its own: its key, two objects, its share of the dictionary."""


class Memory:
    """What the rows of all partitions of a worker may take, in bytes, and what they took when last counted."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, dict[Rows, int]()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.state_memory_mb << 20)

    @property
    def excess(self) -> int:
        return sum(self.used.values()) - self.limit


class Rows:
    """A mapping from key to row; `changed` is what the next snapshot takes. A checkpoint is due after `every` rows."""

    def __init__(self, checkpoint: Checkpoint | None = None, memory: Memory | None = None, every: int = 0) -> None:
        self._checkpoint, self._memory, self._every = checkpoint, memory, every
        self.held: dict[bytes, bytes] = {}
        """Those in memory."""
        self._whole = checkpoint is None or checkpoint.keys == 0
        """Whether memory has every row, so that a key that is not there is new."""
        self._count = 0 if checkpoint is None else checkpoint.keys
        self.position = 0 if checkpoint is None else checkpoint.position
        """The first offset of the changelog that is not in here."""
        self.changed: dict[bytes, bytes] = {}
        self._sent: dict[bytes, bytes] = {}
        self._unsaved: dict[bytes, bytes | None] = {}
        self._since_save = self._loaded = 0
        self.reads = 0
        """From disk."""

    def __len__(self) -> int:
        return self._count

    @property
    def in_memory(self) -> int:
        return len(self.held)

    def get(self, key: bytes) -> bytes | None:
        row = self.held.get(key)
        return row if row is not None or self._whole else self._read(key)

    def _read(self, key: bytes) -> bytes | None:
        assert self._checkpoint is not None
        if self._unsaved.get(key, b"") is None:  # deleted
            return None
        self.reads += 1
        return self._checkpoint.get(key)

    def set(self, key: bytes, row: bytes, *, new: bool) -> None:
        """`new`: there was none."""
        self.held[key] = self.changed[key] = row
        self._count += new

    def update(self, rows: Mapping[bytes, bytes], new: int) -> None:
        """Set many, of which so many were not there."""
        self.held.update(rows)
        self.changed.update(rows)
        self._count += new

    # Restoring

    def resume(self, oldest: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Take up the checkpoint, if it lies within what the changelog holds. The engine's own records of it."""
        if self._checkpoint is None:
            return iter(())
        if not (self.position == 0 or oldest <= self.position <= end):
            self._checkpoint.clear()
            self.position, self._count, self._whole = 0, 0, True
        return self._checkpoint.own()

    def load(self, key: bytes, value: bytes | None) -> None:
        """One record of the changelog, in its order."""
        if self._checkpoint is not None:
            self._unsaved[key] = value
            self._since_save += 1
        if is_meta_key(key):
            return
        had = self.get(key) is not None
        if value is None:
            self.held.pop(key, None)
            self._count -= had
        else:
            self.held[key] = value
            self._count += not had
            self._loaded += len(value) + ROW_OVERHEAD

    async def loaded_to(self, position: int) -> None:
        """All before this offset of the changelog is loaded: save it where memory gets short."""
        self.position = position
        if self._memory is not None:
            self._memory.used[self] = self._loaded
            if self._memory.excess > 0 and self.due:
                await self.save()

    # Committing

    def take(self) -> list[tuple[bytes, bytes]]:
        """What changed, which is now on its way."""
        self._sent, self.changed = self.changed, {}
        return list(self._sent.items())

    def committed(self, records: Mapping[bytes, bytes | None], position: int) -> None:
        """What was taken is committed, with the engine's own records, up to this offset of the changelog."""
        if self._checkpoint is not None:
            self._unsaved |= self._sent
            self._unsaved |= records
            self._since_save += len(self._sent)
            self.position = max(self.position, position)
        self._sent = {}

    @property
    def due(self) -> bool:
        return self._checkpoint is not None and self._since_save >= self._every

    async def save(self) -> None:
        """Bring the checkpoint up to the last commit, then let go of what memory has no room for. One at a time."""
        if self._checkpoint is None or not self._unsaved:
            return
        saving, self._unsaved, self._since_save = self._unsaved, {}, 0
        await self._checkpoint.write(saving, self.position)
        self._trim()

    def _trim(self) -> None:
        """Let go of the rows that came in first, as long as the worker has too many."""
        assert self._memory is not None
        self._loaded = sum(map(len, self.held.values())) + ROW_OVERHEAD * len(self.held)
        self._memory.used[self] = self._loaded
        excess, going = self._memory.excess, []
        if excess <= 0:
            return
        for key, row in self.held.items():
            if key not in self.changed and key not in self._sent and key not in self._unsaved:
                going.append(key)
                excess -= len(row) + ROW_OVERHEAD
                if excess <= 0:
                    break
        for key in going:
            self._loaded -= len(self.held.pop(key)) + ROW_OVERHEAD
        self._memory.used[self], self._whole = self._loaded, self._whole and not going

    def forget(self) -> None:
        """What was restored does not fit together: the next restore begins at the beginning."""
        if self._checkpoint is not None:
            self._checkpoint.clear()

    def close(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()
        if self._memory is not None:
            self._memory.used.pop(self, None)

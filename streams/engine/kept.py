"""Rows in memory as far as there is room, and on disk as far as they are committed.

The newest version of a row is in `held` or in the spill, never in both. One that is not committed is in memory, and in
`changed` (not taken yet) or `_sent` (on its way), too. The checkpoint has every commit. Once much of that is old it is
rewritten, while folding and committing go on: the new file gets what is committed of `held` and of the spill, and every
commit meanwhile, with which the rows of `_skipped` come that had changed.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Self

from freshet.settings import Settings
from streams.engine.batches import built, packed
from streams.engine.checkpoint import Checkpoint
from streams.engine.spill import Spill
from streams.engine.transaction import Sent
from streams.engine.unpacking import unpack_into
from streams.fold.records import Own, State
from streams.fold.rows import Rows, TakenRows, fill

LUMP = 64
"""Rows leave memory a 64th of it at a time."""
OLD = 0.75
"""Old records for each one that is needed, and for each of `spare`, with which a checkpoint is rewritten."""
STEP = 2_000
"""Rows that a rewriting packs at a time, about what a processor's cache holds. Folding goes on in between."""


class Memory:
    """What the partitions of a worker share: so many bytes for their rows, and the turn to rewrite a checkpoint."""

    def __init__(self, limit: int) -> None:
        self._limit, self.sharers, self.turn = limit, set[KeptRows](), asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.state_memory_mb << 20)

    def make_room(self, mine: "KeptRows") -> None:
        """Where they take more, the partition with the most lets some go. Nothing may point to a row."""
        excess = sum(rows.held.size for rows in self.sharers) - self._limit
        free = [rows for rows in self.sharers if rows._skipped is None]
        if excess > 0 and free:
            max(free, key=lambda rows: rows.held.size).let_go(excess + self._limit // LUMP)
        mine.held.tidy()


class KeptRows(Rows):
    """`spare`: a checkpoint may hold old records for so many rows more, or one with few would always be rewritten."""

    def __init__(self, checkpoint: Checkpoint, memory: Memory, spare: int) -> None:
        super().__init__()
        self._checkpoint, self._memory, self._spare = checkpoint, memory, spare
        memory.sharers.add(self)
        self._read = not checkpoint.records
        self._sent: dict[bytes, None] = {}
        self._own: dict[bytes, bytes] = {}
        self._loaded: list[State] = []
        """From the changelog, and not in the checkpoint yet."""
        self._spill = Spill(checkpoint.folder)
        self._skipped: set[bytes] | None = None
        """Of a rewriting that is under way: the rows that come into the new file with their next commit."""
        self._commit = asyncio.Event()

    def __len__(self) -> int:
        return len(self.held) + len(self._spill.places)

    @property
    def position(self) -> int:
        """The first offset of the changelog that is not in the checkpoint."""
        return self._checkpoint.position

    def get(self, key: bytes) -> bytes | None:
        row = self.held.get(key)
        if row is None:
            row = self._spill.take(key)
            if row is not None:
                self.reads += 1
                self.held.put(key, row)
        return row

    # Restoring

    async def resume(self, oldest: int, end: int) -> AsyncIterator[Own]:
        """Load the checkpoint, if it lies within what the changelog holds. The engine's own records in it."""
        if not (self.position == 0 or oldest <= self.position <= end):
            self._checkpoint.clear()
        async for commit in self._checkpoint.read():
            own: Own = {}
            unpack_into(commit, self.held, self._spill.places, own)
            self._keep(own)
            yield own
            self._memory.make_room(self)
        self._read = True

    def load(self, records: Collection[State]) -> Own:
        own: Own = {}
        fill(records, self.held, self._spill.places, own)
        self._keep(own)
        self._loaded += records
        return own

    def _keep(self, own: Own) -> None:
        for key, value in own.items():
            if value is None:
                self._own.pop(key, None)
            else:
                self._own[key] = value

    def loaded_to(self, position: int) -> None:
        """All before this offset of the changelog is loaded. Raises `OSError`."""
        if position > self.position:
            records, self._loaded = self._loaded, []
            self._checkpoint.append(packed(records), len(records), position)
            self._memory.make_room(self)

    # Committing

    def take(self) -> TakenRows:
        """It is now on its way."""
        self._sent = self.changed
        return super().take()

    def committed(self, own: Own, sent: Sent) -> None:
        """What was taken is committed, with these records of the engine, by these batches. Raises `OSError`."""
        self._keep(own)
        self._checkpoint.append([built(batch) for batch in sent.batches], sent.records, sent.end)
        if self._skipped is not None:
            self._skipped -= self._sent.keys()
        self._commit.set()
        self._sent = {}
        self._memory.make_room(self)

    # The checkpoint

    @property
    def _old(self) -> float:
        """Old records for each that it needs and each of `spare`. 0 before it is read, and while it is rewritten."""
        needed = len(self) + len(self._own)
        at_rest = self._read and self._skipped is None
        return (self._checkpoint.records - needed) / (needed + self._spare) if at_rest else 0.0

    @property
    def due(self) -> bool:
        """Whether it has come to `OLD`, or is the oldest and all are as old as if they took turns: so they begin to."""
        old = [rows._old for rows in self._memory.sharers]
        return self._old > OLD or (sum(old) > OLD * (len(old) + 1) / 2 and self._old == max(old))

    async def rewrite(self) -> None:
        """Make the checkpoint anew, of what it needs. Nothing leaves memory meanwhile. Raises `OSError`.

        Only what is committed goes in: a row that has changed since comes with its commit, for which this waits.
        """
        async with self._memory.turn:
            self._checkpoint.begin()
            self._skipped = set()
            self._spill.begin()
            for keys in _in_steps(list(self._spill.places)):
                self._checkpoint.add(list(self._spill.move(keys).items()))
                await self._checkpoint.settled()
            for keys in _in_steps(list(self.held)):
                skipped = (self.changed.keys() & keys) | (self._sent.keys() & keys)
                self._skipped |= skipped
                some = [key for key in keys if key not in skipped] if skipped else keys
                self._checkpoint.add(TakenRows(self.held, some))
                await self._checkpoint.settled()
        while self._skipped:
            self._commit.clear()
            await self._commit.wait()
        self._checkpoint.finish(list(self._own.items()))
        self._skipped = None

    def let_go(self, excess: int) -> None:
        """Spill about so many bytes of rows, but no change that is not committed."""
        going = self.held.cold(excess, self.changed, self._sent)
        self._spill.put(going)
        self.held.drop(going)
        self.held.tidy()

    def forget(self) -> None:
        """What was restored does not fit together: the next restore begins at the beginning."""
        self._checkpoint.clear()

    def close(self) -> None:
        self._memory.sharers.discard(self)
        self._spill.close()
        self._checkpoint.close()


def _in_steps(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[at : at + STEP] for at in range(0, len(keys), STEP))

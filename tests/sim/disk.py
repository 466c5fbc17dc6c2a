"""A model of a worker's disk: the checkpoints of each slot, which outlive its processes, get old, and get lost."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from freshet.settings import Settings
from streams.fold.records import State
from tests.sim.broker import rows_of
from tests.sim.clock import PROCESS

Name = tuple[int, str, int]
"""Slot of the worker, changelog, partition."""


class Kept(NamedTuple):
    records: tuple[State, ...]
    position: int


NOTHING = Kept((), 0)


class Disk:
    def __init__(self) -> None:
        self.versions: dict[Name, list[Kept]] = {}

    def set_back(self, slot: int, writes: int) -> None:
        """What the next process of the slot finds is older by so many writes."""
        for (owner, _, _), versions in self.versions.items():
            if owner == slot:
                del versions[max(0, len(versions) - writes) :]


class Checkpoint:
    """Stands for `streams.engine.checkpoint.Checkpoint`."""

    disk: Disk
    folder = Path()

    def __init__(self, name: Name) -> None:
        self._process, self._versions = PROCESS.get(), self.disk.versions.setdefault(name, [])
        self._new: list[State] | None = None

    @classmethod
    def of(cls, settings: Settings, log_topic: str, partition: int) -> Self:
        return cls((PROCESS.get().slot, log_topic, partition))

    @property
    def _kept(self) -> Kept:
        return self._versions[-1] if self._versions else NOTHING

    @property
    def position(self) -> int:
        return self._kept.position

    @property
    def records(self) -> int:
        return len(self._kept.records)

    async def read(self) -> AsyncIterator[Sequence[State]]:
        for record in self._kept.records:
            await self._process.gate()
            yield [record]

    def append(self, batches: Sequence[bytes], records: int, position: int) -> None:
        rows = [row for batch in batches for row in rows_of(batch)]
        assert len(rows) == records
        if self._new is not None:
            self._new += rows
        self._write(Kept((*self._kept.records, *rows), position))

    def _write(self, kept: Kept) -> None:
        if self._process.alive:
            self._versions.append(kept)

    def begin(self) -> None:
        self._new = []

    async def settled(self) -> None:
        await asyncio.sleep(0)

    def add(self, rows: Sequence[State]) -> None:
        assert self._new is not None
        self._new += rows

    def finish(self, own: Sequence[State]) -> None:
        assert self._new is not None
        self._write(Kept((*self._new, *own), self.position))
        self._new = None

    def clear(self) -> None:
        self._versions.clear()

    def close(self) -> None: ...


class Spill:
    """Stands for `streams.engine.spill.Spill`, whose file would outlive the model of a process."""

    def __init__(self, folder: Path) -> None:
        self.places: dict[bytes, bytes] = {}

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        self.places |= rows

    def take(self, key: bytes) -> bytes | None:
        return self.places.pop(key, None)

    def begin(self) -> None: ...
    def close(self) -> None: ...

    def move(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: self.places[key] for key in keys if key in self.places}

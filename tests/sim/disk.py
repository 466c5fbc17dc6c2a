"""A model of a worker's disk: the checkpoints of each slot, which outlive its processes, get old, and get lost."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Self

from freshet.settings import Settings
from streams.engine.checkpoint import OWN, Overtaken
from tests.sim.clock import PROCESS

Name = tuple[int, str, int]
"""Slot of the worker, changelog, partition."""


class Kept(NamedTuple):
    rows: dict[bytes, bytes]
    position: int


NOTHING = Kept({}, 0)


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

    def __init__(self, name: Name) -> None:
        self._process, self._versions = PROCESS.get(), self.disk.versions.setdefault(name, [])

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
    def keys(self) -> int:
        return sum(not key.startswith(OWN) for key in self._kept.rows)

    def get(self, key: bytes) -> bytes | None:
        return self._kept.rows.get(key)

    def own(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, value) for key, value in self._kept.rows.items() if key.startswith(OWN)])

    async def write(self, records: Mapping[bytes, bytes | None], position: int) -> None:
        """In two steps, between which the process may die."""
        before = self.position
        rows = {key: value for key, value in records.items() if not key.startswith(OWN)}
        await asyncio.to_thread(self._write, rows, before, before)
        await asyncio.to_thread(self._write, records, position, before)

    def _write(self, records: Mapping[bytes, bytes | None], position: int, before: int) -> None:
        if not self._process.alive:
            return
        if before != self.position:
            raise Overtaken
        rows = {key: value for key, value in {**self._kept.rows, **records}.items() if value is not None}
        self._versions.append(Kept(rows, position))

    def clear(self) -> None:
        self._versions.clear()

    def close(self) -> None: ...

"""Negative controls: the engine with one rule broken. The simulation is worth something only if it catches each."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch

from aiokafka.structs import OffsetAndMetadata

from streams.engine import kept, restore, stage, transaction
from streams.engine.batches import packed
from streams.engine.transaction import Outputs, Sent, Transactions
from streams.fold import ring
from streams.fold.rows import TakenRows
from streams.sinks import online
from tests.sim import store
from tests.sim.broker import Consumer
from tests.sim.disk import Spill


async def _without_awaiting(self: Transactions, outputs: Outputs, next_offset: int) -> None:
    await self._producer.begin_transaction()
    await asyncio.gather(*(self._send(target, sent) for target, sent in outputs.items()))
    offsets = {self._source: OffsetAndMetadata(next_offset, "")}
    await self._producer.send_offsets_to_transaction(offsets, self._group)
    await self._producer.commit_transaction()


async def _offsets_outside(self: Transactions, outputs: Outputs, next_offset: int) -> None:
    await self._producer.begin_transaction()
    sent = await asyncio.gather(*(self._send(target, sent) for target, sent in outputs.items()))
    await asyncio.gather(*(future for futures in sent for future in futures))
    broker, process = self._producer.broker, self._producer._process
    await process.request(lambda: broker.commit(self._source, next_offset))
    await self._producer.commit_transaction()


@contextmanager
def _random_ids() -> Iterator[None]:
    ids, real = count(), transaction.AIOKafkaProducer

    def producer(*, transactional_id: str, **more: Any) -> Any:
        return real(transactional_id=f"{transactional_id}-{next(ids)}", **more)

    with patch.object(transaction, "AIOKafkaProducer", producer):
        yield


@contextmanager
def _state_is_kept() -> Iterator[None]:
    """Without asking the group whether another worker has moved the partition on meanwhile."""
    real, asked = stage.Stage.assigned, stage.offsets
    current: ContextVar[stage.Stage] = ContextVar("current")

    async def assigned(self: stage.Stage, partitions: Any) -> None:
        current.set(self)
        await real(self, partitions)

    async def offsets(bootstrap: str, group: str, topic: str, wanted: Any) -> Any:
        found, mine = await asked(bootstrap, group, topic, wanted), current.get()._owners
        return {p: o._replace(committed=mine[p].committed) if p in mine else o for p, o in found.items()}

    with patch.object(stage.Stage, "assigned", assigned), patch.object(stage, "offsets", offsets):
        yield


@contextmanager
def _progress_first() -> Iterator[None]:
    real = online.OnlineSink._write

    def write(self: online.OnlineSink, polled: Any) -> bool:
        for partition, records in polled.items():
            name = self._names[partition.topic]
            to = {partition.partition: records[-1].offset + 1}
            if not self._progress[name].advance(self._known[name], to):
                return False
            self._known[name].update(to)
        return real(self, polled)

    with patch.object(online.OnlineSink, "_write", write):
        yield


@contextmanager
def _dedup_by_commit() -> Iterator[None]:
    real = ring.Ring.records

    def records(self: ring.Ring) -> Any:
        made = real(self)
        self.seen.clear()
        return made

    with patch.object(ring.Ring, "records", records):
        yield


@contextmanager
def _checkpoint_ahead() -> Iterator[None]:
    real = kept.KeptRows.committed

    def committed(self: kept.KeptRows, own: Any, sent: Sent) -> None:
        real(self, own, sent._replace(end=sent.end + 5))

    with patch.object(kept.KeptRows, "committed", committed):
        yield


@contextmanager
def _checkpoint_of_uncommitted() -> Iterator[None]:
    real = kept.KeptRows.committed

    def committed(self: kept.KeptRows, own: Any, sent: Sent) -> None:
        real(self, own, sent)
        assert self._checkpoint is not None
        self._checkpoint.append(packed((), TakenRows(self.held, self.changed)), len(self.changed), self.position)

    with patch.object(kept.KeptRows, "committed", committed):
        yield


async def _without_waiting(self: kept.KeptRows) -> None:
    """A rewriting that leaves out what is changed, and does not wait for its commit."""
    assert self._checkpoint is not None
    self._checkpoint.begin()
    self._checkpoint.add(list(self._spill.move(list(self._spill.places)).items()))
    self._checkpoint.add(self.held.rows([k for k in self.held if k not in self.changed and k not in self._sent]))
    self._checkpoint.finish(list(self._own.items()))


CONTROLS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "sends are not awaited": lambda: patch.object(Transactions, "commit", _without_awaiting),
    "random transactional ids": _random_ids,
    "offsets outside the transaction": lambda: patch.object(Transactions, "commit", _offsets_outside),
    "state kept though another worker moved on": _state_is_kept,
    "restore reads what is uncommitted": lambda: patch.object(
        restore, "AIOKafkaConsumer", lambda **more: Consumer(**{**more, "isolation_level": "read_uncommitted"})
    ),
    "store without compare-and-set": lambda: patch.object(store, "compares", partial(bool, 0)),
    "progress before the write": _progress_first,
    "dedup memory cut by commit": _dedup_by_commit,
    "a checkpoint says more than it holds": _checkpoint_ahead,
    "a checkpoint of what is not committed": _checkpoint_of_uncommitted,
    "a rewriting does not wait for commits": lambda: patch.object(kept.KeptRows, "rewrite", _without_waiting),
    "a rewriting forgets what is spilled": lambda: patch.object(Spill, "move", lambda *_: {}),
}
"""Name -> the mutation, to be entered within `world.models_in`."""

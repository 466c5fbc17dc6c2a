"""A stage: one topic folded, with the partitions that this worker owns, through every rebalance.

The rules, each learnt from a failure: commit once when partitions are revoked, then not before they are assigned
again; keep a partition's state across a rebalance only if the group's offset is still the one that we committed
(another worker may have had it in a generation that this one never saw); never go on after a gap.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Mapping
from time import perf_counter

import msgspec
from aiokafka import TopicPartition

from freshet.settings import Settings
from streams.engine.checkpoint import Checkpoint, Taken
from streams.engine.kept import KeptRows, Memory
from streams.engine.leave import leave
from streams.engine.metrics import RESTORE_SECONDS, RESTORED
from streams.engine.owner import Owner
from streams.engine.restore import Target, offsets, restore
from streams.engine.standby import Standby
from streams.engine.transaction import Transactions
from streams.engine.transport import Batch
from streams.engine.unpacking import BadBatch
from streams.fold.records import Record
from streams.fold.ring import BadRing
from streams.fold.states import Fold, Gap

CHUNK = 250
"""Records between two breaths of the event loop, about 1 ms: transactions of other partitions must move. Their rows,
before and after, fit into a core's cache."""
CLOSE_S = 5.0
"""For the last commit when the worker is told to stop; a supervisor waits 10 s."""

log = logging.getLogger(__name__)


class Behind(RuntimeError):
    """The restored state is older than the offset that the group has committed."""


UNFIT = (Behind, BadRing, BadBatch, msgspec.DecodeError)
"""What is restored does not fit together. Any other error, a broker that is away, say, costs no checkpoint."""


class Stage:
    """`make(partition)` gives a fresh fold; its class says which topics it reads and writes.

    Stages of one worker share their `memory`. A partition commits every `interval_ms`, by default the setting's.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        log_topic: str,
        make: Callable[[int], Fold],
        memory: Memory | None = None,
        interval_ms: int | None = None,
    ) -> None:
        self.source, self.topic = source, settings.topic(source)
        self.group = settings.topic(settings.app_id)
        self._settings, self._log_topic, self._make = settings, settings.topic(log_topic), make
        self._memory = memory or Memory.of(settings)
        self._interval_s = (interval_ms or settings.commit_interval_ms) / 1000
        self._standby = Standby(settings, source, self._log_topic) if settings.standby else None
        self._owners: dict[int, Owner] = {}
        self._rebalances = 0

    def folds(self) -> Mapping[int, Fold]:
        """The folds of the partitions that are ours now."""
        return {partition: owner.fold for partition, owner in list(self._owners.items())}

    def standby_lags(self) -> Mapping[int, int]:
        """Records that the standby is behind, of each partition that it follows now."""
        return {} if self._standby is None else dict(self._standby.lags)

    async def process(self, batch: Batch) -> None:
        """Fold one batch. A batch of a partition that is not ours any more is left to whoever owns it."""
        owner = self._owners.get(batch.partition)
        if owner is None:
            return
        records, done = batch.records, owner.fold.meta.next_offset
        if records[0].offset < done:  # read again after a rebalance
            records = [record for record in records if record.offset >= done]
        for start in range(0, len(records), CHUNK):
            if self._owners.get(batch.partition) is not owner:
                return
            chunk: list[Record] = [
                (record.offset, record.key, record.value) for record in records[start : start + CHUNK]
            ]
            try:
                owner.fold.fold(chunk)
            except Gap as error:
                todo = "restart; if it repeats, records expired unread: see docs/explanation/exactly-once.md"
                leave(str(error), todo, error)
            except Exception as error:
                where = f"{self.source} partition {batch.partition}, offsets {chunk[0][0]} to {chunk[-1][0]}"
                leave(f"{where}: the fold failed", "report a bug, with these records", error)
            owner.changed.set()
            await asyncio.sleep(0)

    async def revoked(self) -> None:
        """A rebalance begins: commit what is folded, then keep still, as another worker may be about to own it."""
        self._rebalances += 1
        for owner in self._owners.values():
            owner.paused = True
        await asyncio.gather(*(owner.commit() for owner in self._owners.values()))

    async def assigned(self, partitions: Collection[int]) -> None:
        """A rebalance ended. Returns when every partition of ours has its state, fenced and checked."""
        rebalance = self._rebalances
        try:
            kept = [p for p in self._owners if p in partitions]
            now = await offsets(self._settings.kafka, self.group, self.topic, kept) if kept else {}
            for p, owner in list(self._owners.items()):
                if p not in partitions or now[p].committed != owner.committed:
                    log.info("%s partition %d: given up at offset %d", self.source, p, owner.committed)
                    await self._owners.pop(p).stop()
            if self._standby is not None:
                await self._standby.stop()
            await self._open([p for p in partitions if p not in self._owners])
            if self._standby is not None:
                await self._standby.start({*range(self._settings.partitions)} - self._owners.keys())
        except Behind as error:
            todo = (
                f"restart; if it repeats, {self._log_topic!r} has lost records: "
                "see docs/explanation/exactly-once.md on starting afresh"
            )
            leave(str(error), todo, error)
        except (BadRing, BadBatch, msgspec.DecodeError) as error:
            todo = (
                "restart, as another worker may have overtaken this one while it read. "
                f"If it repeats, {self._log_topic!r} is damaged: "
                "see docs/explanation/exactly-once.md on starting afresh"
            )
            leave(f"{self.source}: the state does not fit together", todo, error)
        except Taken as error:
            leave(f"{self.source}: {error}", "give each worker a FRESHET_INSTANCE of its own", error)
        except Exception as error:
            todo = "restart; if it repeats, the cause is below: is Kafka up, with all its topics?"
            leave(f"{self.source}: its partitions {sorted(partitions)} could not be opened", todo, error)
        for owner in self._owners.values():
            owner.paused = rebalance != self._rebalances  # revoked again meanwhile: wait for the next assignment
        gc.collect()
        gc.freeze()  # restored rows live long: keep them out of every later collection

    async def _open(self, partitions: list[int]) -> None:
        """Fence, then ask for the offsets, then restore: in this order, so that nothing changes below us.

        Offsets asked for after the restore may be another worker's, when this one was stopped in between; a state that
        was only overtaken would then look like a damaged one.
        """
        if not partitions:
            return
        started = perf_counter()
        folds = {p: self._make(p) for p in partitions}
        opening = [asyncio.to_thread(Checkpoint.of, self._settings, self._log_topic, p) for p in partitions]
        opened, spare = await asyncio.gather(*opening), self._settings.checkpoint_rows
        kept = {p: KeptRows(file, self._memory, spare) for p, file in zip(partitions, opened, strict=True)}
        transactions = {
            p: Transactions(self._settings.kafka, self.group, TopicPartition(self.topic, p)) for p in partitions
        }
        await asyncio.gather(*(t.open() for t in transactions.values()))
        fenced = perf_counter()
        now = await offsets(self._settings.kafka, self.group, self.topic, partitions)
        try:
            targets = {p: Target(kept[p], fold.load_own) for p, fold in folds.items()}
            records = await restore(self._settings.kafka, self._log_topic, targets)
            for p, fold in folds.items():
                fold.rows = kept[p]
                fold.loaded()
                self._check(p, fold.meta.next_offset, now[p].committed)
        except UNFIT:
            for rows in kept.values():
                rows.forget()
            raise
        for p, fold in folds.items():
            fold.begin(now[p].oldest)
            self._owners[p] = Owner(self._settings, fold, kept[p], transactions[p], self._interval_s)
        seconds = perf_counter() - started
        RESTORE_SECONDS.labels(self.source).set(seconds)
        RESTORED.labels(self.source).set(records)
        message = "%s partitions %s: %d records restored in %.2f s, of which %.2f s fencing"
        log.info(message, self.source, sorted(partitions), records, seconds, fenced - started)

    def _check(self, partition: int, next_offset: int, committed: int | None) -> None:
        """State and offset come from the same transactions, so the group cannot be ahead of the state."""
        if committed is not None and committed > max(0, next_offset):
            raise Behind(
                f"{self.source} partition {partition}: the group {self.group!r} has committed {committed}, "
                f"{self._log_topic!r} holds the state as of {max(0, next_offset)}"
            )

    async def close(self) -> None:
        """The worker stops: commit what is folded and let the partitions go."""
        owners, self._owners = self._owners, {}
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(owner.commit() for owner in owners.values()))
                await asyncio.gather(*(owner.stop() for owner in owners.values()))
                if self._standby is not None:
                    await self._standby.stop()
        except TimeoutError:
            todo = "nothing: the next start takes up from the commit before"
            leave(f"{self.source}: the last commit took more than {CLOSE_S:.0f} s", todo)

"""A partition that is ours: its state, its transactions, and the turn at which it commits.

The snapshot is synchronous, a consistent cut; folding goes on while the transaction is on its way. What happens when
partitions come and go is left to `streams.engine.stage`.
"""

import asyncio
from collections import defaultdict
from time import perf_counter

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from freshet.settings import Settings
from streams.engine.batches import batches
from streams.engine.kept import KeptRows
from streams.engine.leave import leave
from streams.engine.metrics import CHECKPOINT_SECONDS, COMMIT_SECONDS, ROWS
from streams.engine.transaction import Outputs, Sent, Transactions
from streams.fold.records import Row, encode_json
from streams.fold.states import Fold, Snapshot
from streams.topics import DEAD_LETTERS, ITEM_DELTAS


def outputs(settings: Settings, log: str, partition: int, snapshot: Snapshot) -> dict[TopicPartition, list[Row]]:
    """Where each part of a snapshot goes. First comes what goes, behind its rows, to their source's partition."""
    out: dict[TopicPartition, list[Row]] = defaultdict(list)
    out[TopicPartition(settings.topic(log), partition)] = [*snapshot.records]
    for target, delta in snapshot.deltas:
        out[TopicPartition(settings.topic(ITEM_DELTAS), target)].append((None, delta))
    for letter in snapshot.rejected:
        out[TopicPartition(settings.topic(DEAD_LETTERS), partition)].append((letter.key, encode_json(letter)))
    return out


class Owner:
    """`committed` is the source offset that the last transaction carried; the group's offset must equal it."""

    def __init__(
        self, settings: Settings, fold: Fold, rows: KeptRows, transactions: Transactions, interval_s: float
    ) -> None:
        self.fold, self.rows, self.transactions = fold, rows, transactions
        self.committed = fold.meta.next_offset
        self.paused = True
        self.changed = asyncio.Event()
        self._settings, self._interval_s = settings, interval_s
        self._lock = asyncio.Lock()
        self._rewriting: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._commit_in_turns(), name=f"commit {fold.source} {fold.partition}")
        self._rewrite_if_due()

    async def _commit_in_turns(self) -> None:
        """Each partition has its own instants: all at once, they would encode together and wait together."""
        interval = self._interval_s
        phase = interval * self.fold.partition / self._settings.partitions
        now = asyncio.get_running_loop().time
        while True:
            await self.changed.wait()
            await asyncio.sleep(interval - (now() - phase) % interval)
            if not self.paused:
                await self.commit()

    async def commit(self) -> None:
        """One transaction with all that changed. Leaves the process when it fails."""
        async with self._lock:
            self.changed.clear()
            if self.fold.meta.next_offset == self.committed:
                return
            started = perf_counter()
            name, partition = self.fold.source, self.fold.partition
            try:
                snapshot = self.fold.snapshot()
                sent = await self.transactions.commit(self._packed(snapshot), snapshot.next_offset)
            except ProducerFenced as error:
                todo = "nothing, a restart is enough; if it repeats, two workers run under one FRESHET_INSTANCE"
                leave(f"{name} partition {partition}: another worker owns it now", todo, error)
            except BaseException as error:
                todo = "restart; nothing is lost. If it repeats, the cause is below: is Kafka up, with all its topics?"
                leave(f"{name} partition {partition}: the commit after offset {self.committed} failed", todo, error)
            self.committed = snapshot.next_offset
            self._keep(snapshot, sent[TopicPartition(self._settings.topic(self.fold.log), partition)])
            COMMIT_SECONDS.labels(name).observe(perf_counter() - started)
            ROWS.labels(name).inc(len(snapshot.rows))

    def _packed(self, snapshot: Snapshot) -> Outputs:
        """Its rows are still in the heap: this comes before anything is folded again."""
        (log, own), *others = outputs(self._settings, self.fold.log, self.fold.partition, snapshot).items()
        return {log: batches(own, snapshot.rows)} | {target: batches(records) for target, records in others}

    def _keep(self, snapshot: Snapshot, sent: Sent) -> None:
        """Bring the checkpoint up to date. Leaves the process when it fails."""
        try:
            self.rows.committed(dict(snapshot.records), sent)
        except Exception as error:
            self._cannot_keep(error)
        self._rewrite_if_due()

    def _rewrite_if_due(self) -> None:
        if self.rows.due and (self._rewriting is None or self._rewriting.done()):
            name = f"rewrite {self.fold.log} {self.fold.partition}"
            self._rewriting = asyncio.create_task(self._rewrite(), name=name)

    async def _rewrite(self) -> None:
        try:
            with CHECKPOINT_SECONDS.labels(self.fold.source).time():
                await self.rows.rewrite()
        except Exception as error:
            self._cannot_keep(error)

    def _cannot_keep(self, error: Exception) -> None:
        todo = "restart; nothing is lost. If it repeats, look at the disk that FRESHET_HOME lies on: is it full?"
        leave(f"{self.fold.source} partition {self.fold.partition}: its checkpoint cannot be written", todo, error)

    async def stop(self) -> None:
        """Give the partition up, after any commit that is on its way. What is not committed is dropped."""
        async with self._lock:
            self._task.cancel()
        if self._rewriting is not None:
            self._rewriting.cancel()
            await asyncio.wait([self._rewriting])
        self.rows.close()
        await self.transactions.close()

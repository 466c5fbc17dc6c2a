"""A model of Kafka: logs, transactions with epochs, read_committed, the group's offsets; and its two clients.

In doubt: the coordinator has taken an end, and its marks reach each partition and the group's offsets one by one.
Left out: replication, compaction, and the broker's own death other than as answers that are late or lost.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, ProducerFenced

from tests.sim.clock import PROCESS, Process

TRANSACTION_S = 15.0
BATCH = 3
"""Records of a batch, so that a commit takes several."""


@dataclass(eq=False)
class Transaction:
    writer: Process
    order: int
    """Of its producer's InitProducerId among all."""
    ended: str = ""
    """"", commit or abort."""
    marks: set[TopicPartition] = field(default_factory=set)
    """Partitions that have its mark."""
    wrote: set[TopicPartition] = field(default_factory=set)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    whole: bool = False


@dataclass
class Stored:
    offset: int
    key: bytes | None
    value: bytes | None
    transaction: Transaction | None
    mark: bool = False
    timestamp: int = 0


@dataclass
class Identity:
    epoch: int = 0
    opened: int = 0
    opener: Process | None = None
    current: Transaction | None = None


class Broker:
    def __init__(self, chance: random.Random, note: Callable[[str], None]) -> None:
        self.note, self.chance, self.logs = note, chance, defaultdict[TopicPartition, list[Stored]](list)
        self.committed: dict[TopicPartition, int] = {}
        self.moved: dict[TopicPartition, list[tuple[int, int]]] = defaultdict(list)
        """Source partition -> (moment, offset) of each that became visible."""
        self.chain: dict[TopicPartition, list[tuple[int, Transaction]]] = defaultdict(list)
        self.ids: dict[str, Identity] = defaultdict(Identity)
        self.count, self.slow_s = 0, 0.0
        self.refuse = self.lose = 0
        self.hit: set[Process] = set()
        """Processes that a fault of the broker has touched."""

    def tick(self) -> int:
        self.count += 1
        return self.count

    def append(self, tp: TopicPartition, key: bytes | None, value: bytes | None, by: Transaction | None = None) -> None:
        self.logs[tp].append(Stored(len(self.logs[tp]), key, value, by))

    def stable(self, tp: TopicPartition) -> int:
        for record in self.logs[tp]:
            if record.transaction is not None and tp not in record.transaction.marks:
                return record.offset
        return len(self.logs[tp])

    def visible(self, tp: TopicPartition) -> list[Stored]:
        log = self.logs[tp][: self.stable(tp)]
        return [r for r in log if not r.mark and (r.transaction is None or r.transaction.ended == "commit")]

    def end(self, transaction: Transaction, how: str) -> None:
        transaction.ended = how
        asyncio.get_running_loop().create_task(self._mark(transaction, self.slow_s))
        if how == "commit":
            for tp, offset in transaction.offsets.items():
                self.chain[tp].append((offset, transaction))
                self.note(f"{transaction.writer.name} commits {tp.topic} {tp.partition} up to {offset}")
        else:
            self.note(f"a transaction of {transaction.writer.name} is aborted")

    async def _mark(self, transaction: Transaction, slow_s: float) -> None:
        targets: list[TopicPartition | None] = [*sorted(transaction.wrote), None]
        self.chance.shuffle(targets)
        for tp in targets:
            await asyncio.sleep(slow_s + self.chance.choice((0.0, 0.002, 0.03)))
            if tp is not None:
                transaction.marks.add(tp)
                self.logs[tp].append(Stored(len(self.logs[tp]), None, None, transaction, mark=True))
            elif transaction.ended == "commit":
                for source, offset in transaction.offsets.items():
                    self.commit(source, offset)
        transaction.whole = True

    def commit(self, source: TopicPartition, offset: int) -> None:
        self.committed[source] = offset
        self.moved[source].append((self.tick(), offset))


class Builder:
    def __init__(self) -> None:
        self.rows: list[tuple[bytes | None, bytes | None]] = []

    def append(self, *, timestamp: int, key: bytes | None, value: bytes | None) -> object:
        if len(self.rows) == BATCH:
            return None
        self.rows.append((key, value))
        return self

    def record_count(self) -> int:
        return len(self.rows)

    def close(self) -> None: ...
    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None: ...

    def _build(self) -> bytes:
        return msgspec.msgpack.encode(self.rows)


rows_of = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]]).decode
"""What a batch was built of."""


class Producer:
    """Stands for `AIOKafkaProducer` in `streams.engine.transaction`."""

    broker: Broker

    def __init__(self, *, transactional_id: str, **_: object) -> None:
        self._process, self._id = PROCESS.get(), transactional_id
        self._epoch, self._order = -1, 0
        self._transaction: Transaction | None = None
        self._sends: list[asyncio.Future[object]] = []

    async def _ask(self, apply: Callable[[], Any]) -> Any:
        return await self._process.request(apply)

    def _mine(self) -> Identity:
        identity = self.broker.ids[self._id]
        if identity.epoch != self._epoch:
            raise ProducerFenced("fenced")
        return identity

    async def start(self) -> None:
        while not await self._ask(self._init):  # noqa: ASYNC110 (CONCURRENT_TRANSACTIONS: ask again)
            await asyncio.sleep(0.02)

    def _init(self) -> bool:
        identity = self.broker.ids[self._id]
        current = identity.current
        if current is not None and not current.ended:
            identity.epoch += 1
            self.broker.end(current, "abort")
        if current is not None and not current.whole:
            return False
        identity.epoch += 1
        identity.current, identity.opened, identity.opener = None, self.broker.tick(), self._process
        self._epoch, self._order = identity.epoch, identity.opened
        return True

    async def stop(self) -> None: ...

    async def begin_transaction(self) -> None:
        while not await self._ask(self._begin):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _begin(self) -> bool:
        identity = self._mine()
        if identity.current is not None and not identity.current.whole:
            return False
        identity.current = self._transaction = Transaction(self._process, self._order)
        asyncio.get_running_loop().call_later(TRANSACTION_S, self._expire, identity.current)
        return True

    def _expire(self, transaction: Transaction) -> None:
        if not transaction.ended:
            self.broker.ids[self._id].epoch += 1
            self.broker.end(transaction, "abort")

    async def send_batch(self, batch: Builder, topic: str, *, partition: int) -> "asyncio.Future[object]":
        def apply() -> SimpleNamespace:
            self._mine()
            assert self._transaction is not None
            assert not self._transaction.ended
            if self.broker.refuse:
                self.broker.refuse -= 1
                self.broker.hit.add(self._process)
                raise MessageSizeTooLargeError
            tp = TopicPartition(topic, partition)
            self._transaction.wrote.add(tp)
            placed = SimpleNamespace(offset=len(self.broker.logs[tp]))
            for key, value in batch.rows:
                self.broker.append(tp, key, value, self._transaction)
            return placed

        task = asyncio.get_running_loop().create_task(self._ask(apply))
        self._sends.append(task)
        return task

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, Any], group: str) -> None:
        def apply() -> None:
            self._mine()
            assert self._transaction is not None
            self._transaction.offsets |= {tp: o.offset for tp, o in offsets.items()}

        await self._ask(apply)

    async def commit_transaction(self) -> None:
        await asyncio.gather(*self._sends, return_exceptions=True)  # aiokafka flushes, and asks nobody how it went
        self._sends.clear()

        def apply() -> bool:
            self._mine()
            assert self._transaction is not None
            self.broker.end(self._transaction, "commit")
            lost, self.broker.lose = self.broker.lose > 0, max(0, self.broker.lose - 1)
            return lost

        if await self._ask(apply):
            self.broker.hit.add(self._process)
            raise KafkaTimeoutError("the answer was lost")


class Consumer:
    """Stands for `AIOKafkaConsumer` in the restore, the sink and the worker's fetcher."""

    broker: Broker

    def __init__(self, *, isolation_level: str = "read_uncommitted", **_: object) -> None:
        self._process, self._committed_only = PROCESS.get(), isolation_level == "read_committed"
        self._at: dict[TopicPartition, int] = {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._at = dict.fromkeys(sorted(partitions), 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self._at)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = await self._process.request(
            lambda: {tp: len(self.broker.logs[tp]) for tp in partitions}
        )
        return ends

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self._at |= dict.fromkeys(partitions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._at[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._at[partition]

    def highwater(self, partition: TopicPartition) -> int | None:
        return len(self.broker.logs[partition])

    async def committed(self, partition: TopicPartition) -> int | None:
        found: int | None = await self._process.request(lambda: self.broker.committed.get(partition))
        return found

    async def commit(self, offsets: object) -> None: ...

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int = 7
    ) -> dict[TopicPartition, list[Stored]]:
        before, polled = dict(self._at), {}

        def fetch() -> dict[TopicPartition, tuple[list[Stored], int]]:
            found = {}
            for tp in partitions or before:
                log = self.broker.logs[tp]
                end = min(self.broker.stable(tp) if self._committed_only else len(log), before[tp] + 7)
                if end > before[tp]:
                    aborted = "abort" if self._committed_only else "never"
                    records = [
                        r for r in log[before[tp] : end]
                        if not r.mark and (r.transaction is None or r.transaction.ended != aborted)
                    ]  # fmt: skip
                    found[tp] = (records, end)
            return found

        for tp, (records, end) in (await self._process.request(fetch)).items():
            if self._at.get(tp) == before[tp]:  # not moved meanwhile
                self._at[tp] = end
                if records:
                    polled[tp] = records
        if not polled:
            await asyncio.sleep(timeout_ms / 1000)
        return polled

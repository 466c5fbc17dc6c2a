"""What Faust and the group's coordinator do around the two stages: assign, fetch, hand over, rebalance.

The stages are the engine's own. A member that does not answer a rebalance is put out after the session timeout and
finds out when it asks again; until then it goes on with what it has.
"""

import asyncio
import random
from typing import Any

from aiokafka import TopicPartition

from freshet.settings import Settings
from streams.engine.kept import Memory
from streams.engine.stage import Stage
from streams.engine.transport import Batch
from streams.fold.items import ItemFold
from streams.fold.users import UserFold
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES
from tests.sim.broker import Broker, Consumer
from tests.sim.clock import Left, Process

SESSION_S = 6.0
HEARTBEAT_S = 0.3
MEMORY = 400
"""Bytes of rows that a stage may hold: two or three."""
WINDOW = 4
"""Applied ids that are remembered, two blocks of two."""


class Group:
    def __init__(self, settings: Settings, chance: random.Random, broker: Broker) -> None:
        self.generation, self.members, self._joined = 0, set["Worker"](), dict["Worker", asyncio.Future[set[Any]]]()
        self._settings, self._chance, self._broker, self._balancing = settings, chance, broker, False

    def rebalance(self) -> None:
        if not self._balancing and self.members:
            self.generation += 1
            self._balancing = True
            asyncio.get_running_loop().call_later(SESSION_S, self._complete, self.generation)
        self._complete_if_all()

    def join(self, worker: "Worker") -> "asyncio.Future[set[TopicPartition]]":
        self.members.add(worker)
        self.rebalance()
        self._joined[worker] = future = asyncio.get_running_loop().create_future()
        self._complete_if_all()
        return future

    def put_out(self, worker: "Worker") -> None:
        if worker in self.members:
            self.members.discard(worker)
            self._joined.pop(worker, None)
            self.rebalance()

    def _complete_if_all(self) -> None:
        if self._balancing and self.members and self._joined.keys() >= self.members:
            self._complete(self.generation)

    def _complete(self, generation: int) -> None:
        if generation != self.generation or not self._balancing:
            return
        self.members, self._balancing = set(self._joined), False
        joined, self._joined = sorted(self._joined.items(), key=lambda pair: pair[0].process.name), {}
        share: dict[Worker, set[TopicPartition]] = {worker: set() for worker, _ in joined}
        turn = self._chance.randrange(8)
        for topic in (EVENTS, ITEM_DELTAS):
            for p in range(self._settings.partitions):
                if joined:
                    share[joined[(p + turn) % len(joined)][0]].add(TopicPartition(self._settings.topic(topic), p))
                turn += self._chance.randrange(2)
        for worker, future in joined:
            has = ", ".join(f"{tp.topic} {tp.partition}" for tp in sorted(share[worker]))
            self._broker.note(f"{worker.process.name} is assigned {has or 'nothing'}")
            future.set_result(share[worker])
            if not worker.process.alive:
                asyncio.get_running_loop().call_later(SESSION_S, self.put_out, worker)


class Worker:
    def __init__(self, process: Process, settings: Settings, group: Group, broker: Broker) -> None:
        self.process, self._group, self._broker = process, group, broker
        self.stages = {
            settings.topic(EVENTS): Stage(
                settings, EVENTS, USER_FEATURES, lambda p: users(settings, p), Memory(MEMORY)
            ),
            settings.topic(ITEM_DELTAS): Stage(settings, ITEM_DELTAS, ITEM_FEATURES, ItemFold, Memory(MEMORY)),
        }
        self.assigned_at = 0
        """The broker's moment at which the last assignment began to be taken up."""
        self._fetcher: Consumer
        self._flowing = asyncio.Event()
        self._waiting: dict[str, asyncio.Queue[Batch]] = {topic: asyncio.Queue(4) for topic in self.stages}

    async def run(self) -> None:
        try:
            for topic in self.stages:
                self.process.start(self._agent(topic))
            self.process.start(self._fetch())
            while True:
                future = await self.process.request(lambda: self._group.join(self))
                partitions = await future
                await self.process.gate()
                generation = self._group.generation
                self.assigned_at = self._broker.tick()
                await asyncio.gather(
                    *(
                        stage.assigned({tp.partition for tp in partitions if tp.topic == topic})
                        for topic, stage in self.stages.items()
                    )
                )
                fetcher = Consumer(isolation_level="read_committed")
                fetcher.assign(partitions)
                for tp in sorted(partitions):
                    fetcher.seek(tp, await fetcher.committed(tp) or 0)
                self._fetcher = fetcher
                self._flowing.set()
                while self._group.generation == generation and self in self._group.members:
                    await asyncio.sleep(HEARTBEAT_S)
                    await self.process.gate()
                self._flowing.clear()
                for queue in self._waiting.values():
                    while not queue.empty():
                        queue.get_nowait()
                await asyncio.gather(*(stage.revoked() for stage in self.stages.values()))
        except Left:
            return

    async def _fetch(self) -> None:
        while True:
            await self._flowing.wait()
            fetcher = self._fetcher
            for tp, records in (await fetcher.getmany(timeout_ms=50)).items():
                if self._flowing.is_set() and fetcher is self._fetcher:
                    await self._waiting[tp.topic].put(Batch(tp.topic, tp.partition, records))

    async def _agent(self, topic: str) -> None:
        try:
            while True:
                batch = await self._waiting[topic].get()
                await self.process.gate()
                await self.stages[topic].process(batch)
        except Left:
            return


def users(settings: Settings, partition: int) -> UserFold:
    return UserFold(partition, WINDOW, 60_000_000, partitions=settings.partitions)

"""One schedule: faults in their order and a seed for all latencies; the world runs it and says what was wrong.

The engine's clients of Kafka and Redis are put out and the models put in; everything else of it is what production
runs, with profiles of two features so that a state is small.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

from aiokafka import TopicPartition

from freshet.settings import Settings
from streams.aggregates import Count, Recent, hash64
from streams.engine import batches, kept, owner, restore, stage, transaction
from streams.events import Event, encode
from streams.fold import items, ring, users
from streams.fold import rows as plain
from streams.profiles import Profile
from streams.sinks import online
from streams.tiled import TiledProfile
from streams.topics import EVENTS, ITEM_FEATURES, USER_FEATURES, partition_of
from tests.sim import checks
from tests.sim.broker import Broker, Builder, Consumer, Producer
from tests.sim.clock import Left, Loop, Process, Stuck, leave
from tests.sim.disk import Checkpoint, Disk, Spill
from tests.sim.store import Client, Store
from tests.sim.worker import SESSION_S, Group, Worker

START = 1_780_000_000_000_000
USERS, ITEMS, WORKERS, SINKS = ("u0", "u1", "u2"), ("i0", "i1"), 2, 2
PATIENCE_S = 240.0
"""Of virtual time, after the last fault, to come to rest."""
user = Profile("user", key="user_id", features=[Count("events", windows=["ever"]), Recent("last", by="item_id", n=3)])
item = TiledProfile("item", key="item_id", features=[Count("events", windows=["ever"])])

FAULTS = (
    "kill", "kill-old-disk", "kill-new-disk", "stop", "wake", "rebalance", "refuse", "lose-answer", "slow-marks",
    "quick-marks", "kill-sink", "kill-in-write", "stop-sink", "wake-sink", "store-down", "lose-tail", "flush",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Wait, send some events, then one fault (or none) to the worker or sink of this number."""

    wait_s: float
    events: int = 0
    fault: str = ""
    target: int = 0


@dataclass(frozen=True)
class Schedule:
    seed: int
    steps: tuple[Step, ...]

    @classmethod
    def drawn(cls, seed: int) -> "Schedule":
        chance = random.Random(seed)
        steps = (
            Step(
                chance.choice((0.0, 0.01, 0.05, 0.1, 0.2, 0.5, SESSION_S + 1)),
                chance.randrange(6),
                chance.choice(("", *FAULTS)),
                chance.randrange(2),
            )
            for _ in range(chance.randrange(2, 7))
        )
        drawn = list(steps)
        if chance.random() < 0.4:  # a zombie, stopped with something to say and woken when others have gone on
            at, who = chance.randrange(len(drawn)), chance.randrange(2)
            zombie = Step(0.5, 3), Step(chance.choice((0.1, 0.2, 0.3)), 0, "stop", who), Step(3.0, 3), Step(5.0, 3)
            drawn[at:at] = [*zombie, Step(1.0, 0, "wake", who)]
        return cls(seed, tuple(drawn))


@dataclass
class Outcome:
    history: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    shape: int = 0
    """Which orders it went through: a hash of the history without its times."""


@cache
def settings() -> Settings:
    return Settings(topic_prefix="", partitions=2, commit_interval_ms=100, checkpoint_rows=1)


class World:
    def __init__(self, schedule: Schedule, loop: Loop) -> None:
        self.schedule, self.loop, self.outcome = schedule, loop, Outcome()
        self.chance = random.Random(schedule.seed)
        self.broker, self.store = Broker(self.chance, self.note), Store(self.violated)
        self.disk = Disk()
        self.group = Group(settings(), self.chance, self.broker)
        self.workers: list[Worker] = []
        self.sinks: list[Process] = []
        self.sent: list[Event] = []
        self._born = 0

    def violated(self, what: str) -> None:
        self.outcome.wrong.append(what)
        self.note(f"WRONG: {what}")

    def note(self, text: str) -> None:
        self.outcome.history.append(f"{self.loop.time():8.3f} s  {text}")

    # Processes

    def _process(self, kind: str, slot: int) -> Process:
        self._born += 1
        return Process(f"{kind}-{self._born}", slot, self.chance, self._ended)

    def _start_worker(self, at: int | None = None) -> None:
        slot = len(self.workers) if at is None else at
        worker = Worker(self._process("worker", slot), settings(), self.group, self.broker)
        if at is None:
            self.workers.append(worker)
        else:
            self.workers[at] = worker
        worker.process.start(worker.run())

    def _start_sink(self, at: int | None = None) -> None:
        process = self._process("sink", len(self.sinks) if at is None else at)
        if at is None:
            self.sinks.append(process)
        else:
            self.sinks[at] = process
        process.start(self._sink(process))

    async def _sink(self, process: Process) -> None:
        try:
            await online.OnlineSink(settings()).run(asyncio.Event())
        except Left:
            pass
        except Exception as error:
            process.exit(f"sink: {error!r}")

    def _ended(self, process: Process, why: str) -> None:
        self.note(f"{process.name} ends: {why}")
        later = self.loop.call_later
        if process in self.sinks:
            if why != "killed":
                self.violated(f"{process.name} left: {why}")
            later(self.chance.choice((0.0, 0.3)), self._start_sink, self.sinks.index(process))
            return
        at = next(i for i, worker in enumerate(self.workers) if worker.process is process)
        if why != "killed":
            checks.way_out(self, self.workers[at], why)
        later(self.chance.choice((0.0, 0.5, SESSION_S)), self.group.put_out, self.workers[at])
        later(self.chance.choice((0.01, 0.3, 2.0)), self._start_worker, at)

    # Faults

    def send(self, count: int) -> None:
        """New events, some followed by a client's retry of one of the last few."""
        for _ in range(count):
            if self.sent and self.chance.random() < 0.25:
                again = [e for e in self.sent if home(e) == home(self.sent[-1])][-3:]
                event = self.chance.choice(again)
            else:
                n = len(self.sent)
                at = START + n * 1_000_000
                event = Event(f"e{n}", self.chance.choice(USERS), self.chance.choice(ITEMS), "view", at, at)
                self.sent.append(event)
            tp = TopicPartition(settings().topic(EVENTS), home(event))
            self.broker.append(tp, event.user_id.encode(), encode(event))

    def fault(self, step: Step) -> None:
        worker, sink, broker, store = (
            self.workers[step.target].process,
            self.sinks[step.target],
            self.broker,
            self.store,
        )
        match step.fault:
            case "kill":
                worker.exit("killed")
            case "kill-old-disk" | "kill-new-disk":
                worker.exit("killed")
                self.disk.set_back(step.target, 1 if step.fault == "kill-old-disk" else 1 << 30)
            case "stop" | "stop-sink":
                (worker if step.fault == "stop" else sink).running.clear()
                if step.fault == "stop":
                    self.loop.call_later(SESSION_S, self._put_out_if_stopped, self.workers[step.target])
            case "wake" | "wake-sink":
                (worker if step.fault == "wake" else sink).running.set()
            case "rebalance":
                self.group.rebalance()
            case "refuse":
                broker.refuse = 1
            case "lose-answer":
                broker.lose = 1
            case "slow-marks" | "quick-marks":
                broker.slow_s = 1.5 if step.fault == "slow-marks" else 0.0
            case "kill-sink":
                sink.exit("killed")
            case "kill-in-write":
                store.die_in = self.chance.randrange(4)
            case "store-down":
                store.down = True
                self.loop.call_later(self.chance.choice((0.05, 1.0)), setattr, store, "down", False)
            case "lose-tail":
                store.lose(self.chance.randrange(1, 30))
            case "flush":
                store.lose(1 << 30)

    def _put_out_if_stopped(self, worker: Worker) -> None:
        if not worker.process.running.is_set():
            self.group.put_out(worker)

    # The schedule

    async def run(self) -> None:
        for _ in range(WORKERS):
            self._start_worker()
        for _ in range(SINKS):
            self._start_sink()
        for step in self.schedule.steps:
            await asyncio.sleep(step.wait_s)
            self.send(step.events)
            if step.fault:
                self.outcome.faults[step.fault] += 1
            self.note(f"{step.events} events; {step.fault or 'no fault'} ({step.target})")
            self.fault(step)
        self.broker.slow_s, self.broker.refuse, self.broker.lose, self.store.die_in = 0.0, 0, 0, -1
        for process in (*(w.process for w in self.workers), *self.sinks):
            process.running.set()
        give_up = self.loop.time() + PATIENCE_S
        while self.loop.time() < give_up and not self.outcome.wrong:
            await asyncio.sleep(0.5)
            if checks.at_rest(self):
                checks.final(self)
                return
        if not self.outcome.wrong:
            self.violated("it did not come to rest")


def home(event: Event) -> int:
    return partition_of(event.user_id.encode(), settings().partitions)


@contextmanager
def models_in() -> Iterator[None]:
    """The edges of the engine replaced, for any number of schedules."""
    with ExitStack() as stack:
        for module, name, model in (
            (transaction, "AIOKafkaProducer", Producer), (restore, "AIOKafkaConsumer", Consumer),
            (online, "AIOKafkaConsumer", Consumer), (online, "Redis", Client),
            (owner, "leave", leave), (stage, "leave", leave), (ring, "BLOCK", 2), (stage, "CHUNK", 2),
            (stage, "Checkpoint", Checkpoint), (kept, "Spill", Spill),
            (batches, "pack", None), (kept, "unpack_into", plain.fill), (batches, "_builder", Builder),
            (stage, "gc", SimpleNamespace(collect=lambda: None, freeze=lambda: None)),
            (users, "user", user), (items, "item", item),
            (online, "SOURCES", {USER_FEATURES: user, ITEM_FEATURES: item}),
        ):  # fmt: skip
            stack.enter_context(patch.object(module, name, model))
        for module in (stage, online):
            stack.enter_context(patch.object(module.log, "disabled", True))
        yield


def run(schedule: Schedule) -> Outcome:
    """Within `models_in`."""
    loop = Loop()
    world = World(schedule, loop)
    Producer.broker = Consumer.broker = world.broker
    Client.store, Checkpoint.disk = world.store, world.disk
    clock = SimpleNamespace(monotonic=loop.time, time=loop.time)
    with patch.object(online, "time", clock), patch.object(restore, "monotonic", loop.time):
        try:
            loop.run_until_complete(loop.create_task(world.run()))
        except Stuck:
            world.violated("everything waits")
        finally:
            loop.end()
    world.outcome.shape = hash64("\n".join(line[12:] for line in world.outcome.history))
    return world.outcome

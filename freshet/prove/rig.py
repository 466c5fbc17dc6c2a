"""The line that a scenario hits: its own broker, Redis, workers, sinks, topics and folder."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from confluent_kafka.admin import AdminClient

from freshet.prove.history import History
from freshet.prove.processes import Process, Supervisor
from freshet.prove.progress import PLACES, Places, Progress
from freshet.prove.workload import Workload
from freshet.settings import Settings, variable
from freshet.stack import flink, kafka, probes, redis
from freshet.stack.ports import Claims
from streams.topics import TOPICS, create_topics

SERVER_S = 90.0
"""A broker on a busy machine of two cores has needed 15 s."""
PORT = 21_000
METRICS_PORTS = 16


class Unproved(RuntimeError):
    """Something that must happen did not. The text says what."""


class RigError(RuntimeError):
    """The rig itself does not work, so nothing can be said of the line."""


@dataclass(frozen=True)
class Plan:
    """What a rig is made of.

    `launch` are arguments of `freshet.prove.launch` before a program's name, `program` is the workers' program there.
    With `flink` one Flink job, of as many subtasks, stands for all workers; `program` may be a module in its stead.
    """

    workers: int = 2
    partitions: int = 4
    online_sinks: int = 1
    brokers: int = 1
    launch: Sequence[str] = ()
    program: str = "worker"
    apart_s: float = 0.0
    heap_mb: int = 384
    state_memory_mb: int = Settings.model_fields["state_memory_mb"].default
    checkpoint_rows: int = Settings.model_fields["checkpoint_rows"].default
    flink: bool = False


class Strike(NamedTuple):
    """When a fault hit (monotonic, and since the run began), and how far each place was then."""

    at: float
    at_s: float
    places: dict[str, Places]


class Rig:
    """A context: inside it everything runs, after it nothing does. Raises `RigError`."""

    def __init__(self, folder: Path, cache_dir: Path, plan: Plan) -> None:
        self.plan, self.folder = plan, folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self._claims = Claims(cache_dir / "ports")
        # far from where others look at the same moment
        at = PORT + int.from_bytes(os.urandom(2), "little") % 8_000
        names = [f"kafka{n}" for n in range(1, plan.brokers + 1)]
        first, store = self._claims.choose(at, run=2 * plan.brokers), self._claims.choose(at + 100)
        self._ports = {name: first + n for n, name in enumerate(names)} | {"redis": store}
        self.metrics_port = self._claims.choose(at + 200, run=METRICS_PORTS)
        self.settings = Settings(
            home=folder / "home",
            cache_dir=cache_dir,
            kafka=",".join(f"127.0.0.1:{self._ports[name]}" for name in names),
            redis_url=f"redis://127.0.0.1:{store}/0",
            topic_prefix="",
            partitions=plan.partitions,
            replication=plan.brokers,
            app_id="freshet",
            archive_dir=folder / "home" / "archive",
            offline_dir=folder / "home" / "offline",
            state_memory_mb=plan.state_memory_mb,
            checkpoint_rows=plan.checkpoint_rows,
            dedup_window=65_536,
            commit_interval_ms=150,
            future_tolerance_s=60,
            flink_parallelism=plan.workers if plan.flink else 1,
        )
        self.settings.home.mkdir(parents=True)
        self.workload: Workload
        self.history = History(folder / "history.jsonl")
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.supervisor = Supervisor(f"prove-{uuid.uuid4().hex}", self.history)
        try:
            self._add("redis", redis.prepare(self.settings.home / "redis", port=self._ports["redis"]))
            for node, name in enumerate(self.brokers(), 1):
                self._add(name, self._broker(node, name))
            for name in self._ports:
                self.wait_for_server(name)
            asyncio.run(create_topics(self.settings))
            self.progress = Progress(self.settings)
            for i in range(self.plan.online_sinks):
                self._ours(f"online{i}", ["sinks", "online"], "sink_metrics_port")
            self._ours("archive", ["sinks", "archive"], "sink_metrics_port")
        except BaseException:
            self.supervisor.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.supervisor.close()
        self.history.close()
        self._claims.__exit__()

    # Programs

    def join(self, i: int) -> Process:
        """Start worker `i`."""
        if self.plan.flink:
            module = "streams.flink" if self.plan.program == "worker" else self.plan.program
            command = flink.command(self.settings, module)
            return self.supervisor.add(f"worker{i}", *command, self.logs / f"worker{i}.log")
        return self._ours(f"worker{i}", [self.plan.program], "worker_metrics_port", instance=f"w{i}")

    def start_workers(self) -> None:
        """Start all workers, as far apart as planned."""
        for i in range(1 if self.plan.flink else self.plan.workers):
            time.sleep(self.plan.apart_s if i else 0)
            self.join(i)

    def stop_line(self) -> dict[str, Process]:
        """End workers and sinks politely; the servers go on. Returns all that ever ran of ours."""
        for name in [name for name in self.supervisor.processes if name not in self._ports]:
            self.supervisor.remove(name)
        return self.supervisor.ended

    def run_once(self, name: str, program: str, order: str) -> Process:
        """Run a program of ours beside the line, once, with an order for its launcher."""
        return self._ours(name, [program], "sink_metrics_port", once=order)

    def process(self, name: str) -> Process:
        return self.supervisor.processes[name]

    def limit_records(self, topic: str, size: int) -> None:
        """Have the broker refuse batches of a topic that are larger than `size` bytes."""
        spec = replace(TOPICS[topic], max_message_bytes=size).configs(self.settings.replication)

        async def alter() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
            await admin.start()
            try:
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.settings.topic(topic), spec)])
            finally:
                await admin.close()

        asyncio.run(alter())

    def strike(self) -> None:
        """The fault hits now: recovery is measured from here."""
        self.struck = Strike(
            time.monotonic(), self.history.now_s(), {place: self.progress.now(place) for place in PLACES}
        )

    def until(self, true: Callable[[], bool], what: str, limit_s: float) -> None:
        """Wait. Raises `Unproved` after `limit_s`: what should have happened did not."""
        give_up = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > give_up:
                raise Unproved(f"{what} did not happen in {limit_s:.0f} s")
            time.sleep(0.02)

    def workers(self) -> list[str]:
        return [name for name in self.supervisor.processes if name.startswith("worker")]

    def wait_for_server(self, name: str) -> None:
        """Until a server answers. Raises `RigError`."""
        port = self._ports[name]
        probe = (probes.redis if name == "redis" else probes.kafka)("127.0.0.1", port)
        give_up = time.monotonic() + SERVER_S
        while True:
            try:
                asyncio.run(probe())
                return
            except OSError as error:
                if time.monotonic() > give_up:
                    raise RigError(f"{name} does not answer ({error}); see {self.logs / name}.log") from error
                time.sleep(0.1)

    def brokers(self) -> list[str]:
        return [name for name in self._ports if name.startswith("kafka")]

    def wait_for_replicas(self) -> None:
        """Until every partition has all its replicas in sync. Raises `RigError`."""
        admin, give_up = (
            AdminClient({"bootstrap.servers": self.settings.kafka, "log_level": 0}),
            time.monotonic() + SERVER_S,
        )
        while True:
            topics = admin.list_topics(timeout=10).topics.values()
            if all(len(p.isrs) == len(p.replicas) for topic in topics for p in topic.partitions.values()):
                return
            if time.monotonic() > give_up:
                raise RigError(f"replicas are not in sync after {SERVER_S:.0f} s")
            time.sleep(0.2)

    def _broker(self, node: int, name: str) -> list[str]:
        port, brokers = self._ports[name], len(self.brokers())
        first = port - node + 1
        return kafka.prepare(
            self.settings.home / name,
            self.settings.cache_dir,
            port=port,
            controller_port=port + brokers,
            heap_mb=self.plan.heap_mb,
            node=node,
            controllers=range(first + brokers, first + 2 * brokers) if brokers > 1 else (),
        )

    def _add(self, name: str, command: list[str]) -> Process:
        return self.supervisor.add(name, command, {}, self.logs / f"{name}.log")

    def _ours(
        self, name: str, program: list[str], metrics: str, *, instance: str | None = None, once: str | None = None
    ) -> Process:
        port = self.metrics_port + self._numbers.setdefault(name, len(self._numbers))
        settings = self.settings.as_env()
        if instance is not None:
            settings |= {variable("instance"): instance, variable("standby"): "true"}
        settings[variable(metrics)] = str(port)
        command = [sys.executable, "-m", "freshet.prove.launch", *self.plan.launch, *program]
        env = settings | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return self.supervisor.add(name, command, env, self.logs / f"{name}.log", once=once)

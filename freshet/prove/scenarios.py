"""The scenarios: which faults a run injects, and what the line and its workload must be like for them.

`CONTROLS` are scenarios whose line is broken (`freshet.prove.controls`): each must be caught.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from freshet.prove import faults as f
from freshet.prove import outages as o
from freshet.prove.faults import Fault
from freshet.prove.workload import Shape

Faults = Callable[[int, random.Random], Sequence[Fault]]
"""(how many kills are asked for, the seed's random numbers) -> the faults, in their order."""
RETRIES = Shape(retries=0.15, late_retries=0.3)

_CANNOT_START = frozenset({1})
"""A worker that starts while a broker is away, or a topic refuses its batches, ends and is started again."""


@dataclass(frozen=True)
class Scenario:
    """A named scenario. `together`: the share of faults that come before the line has recovered from the last one."""

    name: str
    says: str
    faults: Faults
    shape: Shape = field(default_factory=Shape)
    together: float = 0.25
    partitions: int = 4
    online_sinks: int = 1
    brokers: int = 1
    control: str | None = None
    exits: frozenset[int] = frozenset()
    """Exit codes that are right here, beside those of every scenario."""
    program: str = "worker"
    apart_s: float = 0.0
    """So long each worker starts after the one before."""
    engines: tuple[str, ...] = ("faust",)
    """What may fold. A Flink job can stand for the workers where the faults need nothing of their inside."""

    @property
    def is_control(self) -> bool:
        """Whether its line is broken on purpose."""
        return self.control is not None or self.program != "worker"

    @property
    def is_stock(self) -> bool:
        """Whether another application stands for the line's own."""
        return self.program.startswith("stock-")

    @property
    def launch(self) -> tuple[str, ...]:
        """What the programs' launcher is told."""
        return ("--control", self.control) if self.control else ()


def _these(*faults: Fault) -> Faults:
    return lambda kills, rnd: faults


def _random_kills(kills: int, rnd: random.Random) -> list[Fault]:
    return [
        f.KillWorker() if (chance := rnd.random()) < 0.8 else f.KillSink("online0" if chance < 0.9 else "archive")
        for _ in range(kills)
    ]


def _worker_kills(kills: int, rnd: random.Random) -> list[Fault]:
    return [f.KillWorker() for _ in range(min(max(kills, 3), 8))]


def _checkpoint_kills(kills: int, rnd: random.Random) -> list[Fault]:
    return [f.KillAtCheckpoint() for _ in range(kills)]


def _points(kills: int, rnd: random.Random) -> list[Fault]:
    """Every named point in turn."""
    each: list[Fault] = [
        *(
            f.KillAt(p)
            for p in (
                "after_begin",
                "among_sends",
                "after_sends",
                "after_offsets",
                "before_end",
                "after_end",
                "in_checkpoint",
                "after_checkpoint",
            )
        ),
        f.KillAt("in_rewriting", at_most=3),
        f.KillAt("after_rewriting", at_most=1),
        f.KillInRestore(),
        f.KillAt("before_redis", "online0", 3),
        f.KillAt("after_redis", "online0", 3),
        f.KillAt("in_archive_file", "archive", 2),
        f.KillAt("after_archive_file", "archive", 2),
        f.KillBackfill(),
        f.KillBackfill("in_publishing", 1),
    ]
    found: list[Fault] = []
    while sum(fault.kills for fault in found) < kills:
        rnd.shuffle(each)
        found.extend(each)
    return found


def _comings_and_goings(kills: int, rnd: random.Random) -> list[Fault]:
    kinds = (f.Join, f.Leave, f.Join, f.KillWorker, f.Leave)
    return [kinds[k % len(kinds)]() for k in range(max(kills, len(kinds)))]


def _lost_workers(kills: int, rnd: random.Random) -> list[Fault]:
    return [f.LoseWorker() for _ in range(kills)]


_ALL = (
    Scenario(
        "kills",
        "workers and sinks are killed at random, also while they start and restore",
        _random_kills,
        engines=("faust", "flink"),
    ),
    Scenario(
        "early", "a worker joins before the first commit of the others", _these(f.KillWorker()), together=0, apart_s=0.7
    ),
    Scenario(
        "short",
        "some of all: the form that runs in the tests",
        _these(f.KillWorker(), f.Zombie(), f.KillInRestore(), f.KillAt("after_checkpoint"), f.KillSink("online0")),
        RETRIES,
        apart_s=0.7,
    ),
    Scenario("takeover", "a worker is killed and stays away until others have its partitions", _lost_workers),
    Scenario("points", "workers, sinks and backfills are killed at every named point", _points),
    Scenario(
        "zombies",
        "a worker sleeps in a transaction until others have its partitions, then goes on",
        _these(f.Zombie(), f.Zombie("after_begin"), f.Zombie("after_offsets"), f.Zombie("after_end")),
    ),
    Scenario("scaling", "workers join and leave, and are killed meanwhile", _comings_and_goings),
    Scenario(
        "broker",
        "the broker is killed and returns",
        _these(o.KillBroker(), f.KillWorker(), o.KillBroker()),
        exits=_CANNOT_START,
    ),
    Scenario(
        "brokers",
        "three brokers, replication 3, min.isr 2, killed one after another",
        _these(o.KillBroker(0), o.KillBroker(1), f.KillWorker(), o.KillBroker(2), o.KillBroker(0)),
        brokers=3,
        exits=_CANNOT_START,
    ),
    Scenario(
        "refusals",
        "the broker refuses rows for a while",
        _these(o.RefuseRows(), f.KillWorker(), o.RefuseRows()),
        exits=_CANNOT_START,
    ),
    Scenario(
        "redis",
        "Redis loses the tail of its log, or everything",
        _these(o.KillRedis(), o.FlushRedis(), f.KillSink("online0"), o.KillRedis()),
    ),
    Scenario(
        "stale-sink", "of two online sinks one wakes up with old rows", _these(*[f.StaleSink()] * 3), online_sinks=2
    ),
    Scenario("disk-full", "the archive's disk is full", _these(o.DiskFull(), f.KillSink("archive"), o.DiskFull())),
    Scenario(
        "retries", "clients repeat events, up to an hour late", _random_kills, RETRIES, engines=("faust", "flink")
    ),
    Scenario("clocks", "the senders' clocks jump by up to an hour", _random_kills, Shape(jumps=5_000)),
    Scenario("poison", "a twentieth of all records is no event", _random_kills, Shape(poison=0.05)),
    Scenario("large", "records of 10 MB", _these(o.LargeRecords(), f.KillWorker(), o.LargeRecords(), f.KillWorker())),
    Scenario("silent", "a partition without traffic", _random_kills, Shape(silent=True)),
    Scenario("partitions", "more partitions than workers", _random_kills, partitions=12),
    Scenario("checkpoints", "Flink is killed just after a checkpoint", _checkpoint_kills, engines=("flink",)),
)
_BROKEN = (
    Scenario("unawaited-sends", "sends are not awaited", _these(o.RefuseRows()), control="unawaited-sends"),
    Scenario("random-ids", "random transactional ids", _these(f.Zombie(must_be_fenced=False)), control="random-ids"),
    Scenario(
        "no-compare-and-set", "a sink that writes without comparing", _these(*[f.StaleSink()] * 3), online_sinks=2,
        control="no-compare-and-set",
    ),
    Scenario("stock-exactly-once", "Faust's own exactly-once", _worker_kills, program="stock-exactly-once", apart_s=2),
    Scenario("stock-at-least-once", "Faust's own tables", _worker_kills, program="stock-at-least-once", apart_s=2),
    Scenario(
        "flink-at-least-once", "Flink with a sink that promises less", _worker_kills, engines=("flink",),
        program="freshet.prove.loose",
    ),
    Scenario("no-dedup", "a dedup window that is switched off", _these(f.KillWorker()), control="no-dedup"),
)  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
CONTROLS = {scenario.name: scenario for scenario in _BROKEN}

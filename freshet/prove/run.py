"""One run: a rig, a workload, the faults of a scenario one after another, quiet, and the verdict."""

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from freshet.prove import checker
from freshet.prove.faults import Fault
from freshet.prove.progress import FOLD, STORE
from freshet.prove.rig import Plan, Rig, Unproved
from freshet.prove.scenarios import Scenario
from freshet.prove.verdict import ENDED_WELL, Injected, Report, Verdict
from freshet.prove.workload import Workload, records
from monitoring import quiet
from monitoring.quiet import NotQuiet
from monitoring.quiet import Progress as Tell
from monitoring.raw import ReadError
from monitoring.report import Check
from streams.backfill import BackfillError
from streams.topics import EVENTS

RECOVERY_S = 60.0
"""A fault whose partitions stand still for longer is a hang."""
QUIET_S, CONTROL_QUIET_S = 180.0, 20.0
"""Where a promise is broken the line may never come to rest."""
FLOWING_S = 0.3
"""A fault comes when events have flowed for so long again."""
STATE_MEMORY_MB, CHECKPOINT_ROWS = 1, 300
"""So little that states leave memory, and are read from disk, all the time."""
BUSY_S = 30.0
"""Within this there must be work in progress, or there is nothing for a fault to hit."""


class Hang(RuntimeError):
    """No progress. The text says where."""


class NoData(RuntimeError):
    """Too little happened. The text says what."""


@dataclass(frozen=True)
class Order:
    """What is asked: how many events and kills, and everything else from the seed. `rate` in events a second."""

    scenario: Scenario
    events: int
    kills: int
    workers: int
    seed: int
    rate: float
    engine: str = "faust"

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return (
            f"freshet prove --scenario {self.scenario.name} --events {self.events} --kills {self.kills} "
            f"--workers {self.workers} --seed {self.seed} --rate {self.rate:g}"
            + (f" --engine {self.engine}" if self.engine != "faust" else "")
        )


def prove(order: Order, folder: Path, cache_dir: Path, tell: Tell, *, keep: bool = False) -> Report:
    """Run it in `folder`, which must not exist; it is kept unless the verdict is PASSED. Raises `RigError`."""
    scenario = order.scenario
    report = Report(scenario.name, order.seed, folder=str(folder), again=order.command)
    plan = Plan(
        order.workers,
        scenario.partitions,
        scenario.online_sinks,
        scenario.brokers,
        scenario.launch,
        scenario.program,
        scenario.apart_s,
        state_memory_mb=STATE_MEMORY_MB,
        checkpoint_rows=CHECKPOINT_ROWS,
        flink=order.engine == "flink",
    )
    with Rig(folder, cache_dir, plan) as rig:
        try:
            _Run(rig, order, report, tell).drive()
            report.verdict = Verdict.FAILED if report.mismatches else Verdict.PASSED
            report.why = next((f"{check.name}: {check.examples[0]}" for check in report.checks if check.examples), "")
        except (Hang, NotQuiet, TimeoutError) as error:
            report.verdict, report.why = Verdict.HANG, str(error)
        except NoData as error:
            report.verdict, report.why = Verdict.NODATA, str(error)
        except (ReadError, BackfillError, Unproved) as error:
            report.verdict, report.why = Verdict.FAILED, str(error)
        rig.history.note("verdict", verdict=report.verdict, why=report.why)
    (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1))
    if report.verdict is Verdict.PASSED and not keep:
        shutil.rmtree(folder)
    return report


class _Run:
    def __init__(self, rig: Rig, order: Order, report: Report, tell: Tell) -> None:
        self._rig, self._order, self._report, self._tell = rig, order, report, tell
        self._rnd = random.Random(order.seed)
        pairs = records(order.events, order.seed, order.scenario.shape)
        self._workload = Workload(rig.settings.kafka, rig.settings.topic(EVENTS), pairs, order.events, order.rate)
        rig.workload = self._workload
        self._marks: list[tuple[float, dict[int, int]]] = []

    def drive(self) -> None:
        """Send and inject, wait for quiet, check. Raises `Hang`, `NoData`, and what the checker raises."""
        rig, report, workload, began = self._rig, self._report, self._workload, time.monotonic()
        workload.start()
        rig.start_workers()
        try:
            self._inject_all()
            workload.finish()
        except Hang as error:
            if not self._order.scenario.is_control:
                raise
            rig.history.note("hang", why=str(error))  # a broken line may; what its stores hold is judged all the same
            workload.finish()
        finally:
            workload.stop()
            report.sent, report.acknowledged = workload.sent, workload.acknowledged
        rig.history.note("all sent", acknowledged=workload.acknowledged)
        if workload.refused:
            raise NoData(f"the broker refused {len(workload.refused)} records: {workload.refused[0]}")
        hang = self._settle()
        report.line_s = time.monotonic() - began
        rig.history.note("quiet")
        report.exits = {name: dict(process.exits) for name, process in rig.stop_line().items()}
        report.checks.append(_ended_well(report, self._order.scenario.exits))
        began = time.monotonic()
        if not self._order.scenario.is_stock:
            checker.check(rig.settings, workload.acknowledged, report, self._tell, quiet=hang is None)
        else:
            checker.check_stock(rig.settings, rig.progress.now(FOLD), report)
        report.check_s = time.monotonic() - began
        if hang is not None:  # with what the stores look like then
            raise hang

    def _settle(self) -> Exception | None:
        """Wait until all has recovered and is quiet. Returns the hang, if it is one."""
        try:
            for k in range(len(self._report.faults)):
                self._until_recovered(k)
            if not self._order.scenario.is_stock:
                quiet.wait(self._rig.settings, self._patience(QUIET_S), self._tell)
            else:
                progress, ends = self._rig.progress, self._workload.ends
                self._until(lambda: not progress.behind(FOLD, ends), "the stock application", CONTROL_QUIET_S)
        except (Hang, NotQuiet) as error:
            return error
        return None

    def _inject_all(self) -> None:
        """Fault k comes at a random record of the k-th slice; the workload leaves that slice slowly before it."""
        faults = self._order.scenario.faults(self._order.kills, self._rnd)
        size = self._order.events / (len(faults) + 1)
        for k, fault in enumerate(faults):
            self._workload.allow(int((k + 1) * size))
            at = int((k + self._rnd.random()) * size)
            self._until(lambda: self._workload.sent >= at, "the workload")  # noqa: B023 (called at once)
            if k and self._rnd.random() >= self._order.scenario.together:
                self._until_recovered(k - 1)
            self._workload.allow(int((k + 2) * size))
            flowing = min(self._workload.sent + int(self._order.rate * FLOWING_S), self._order.events)
            self._until(lambda: self._workload.sent >= flowing, "the workload")  # noqa: B023
            self._inject(fault)
            self._tell("faults", k + 1, len(faults))

    def _inject(self, fault: Fault) -> None:
        progress, ends = self._rig.progress, self._workload.ends
        try:
            self._until(lambda: bool(progress.behind(fault.place, ends)), "work", BUSY_S)
        except Hang:
            raise NoData(f"{fault.name} met no work in progress in {BUSY_S:.0f} s") from None
        behind = progress.behind(fault.place, ends)
        self._rig.strike()
        detail = fault.inject(self._rig, self._rnd)
        struck = self._rig.struck
        self._marks.append((struck.at, {p: struck.places[fault.place].get(p, 0) for p in behind}))
        self._report.kills += fault.kills
        self._report.faults.append(Injected(struck.at_s, fault.name, detail, fault.place, sum(behind.values())))
        self._rig.history.note("fault", fault=fault.name, detail=detail, behind=behind)

    def _until_recovered(self, k: int) -> None:
        """Until every partition that had work at the k-th fault has moved on."""
        injected, (since, marks) = self._report.faults[k], self._marks[k]

        def recovered() -> bool:
            injected.recovered_s = self._rig.progress.moved_after(injected.place, since, marks)
            if injected.recovered_s is None and self._nothing_left(injected.place):
                injected.recovered_s = time.monotonic() - since
            return injected.recovered_s is not None

        what = f"{injected.place} after {injected.fault} of {injected.detail}"
        self._until(recovered, what, self._patience(RECOVERY_S))

    def _patience(self, usual_s: float) -> float:
        """Less with a broken line, except where it is Flink: that takes as long to start as to hang."""
        impatient = self._order.scenario.is_control and self._order.engine == "faust"
        return CONTROL_QUIET_S if impatient else usual_s

    def _nothing_left(self, place: str) -> bool:
        """Whether all was sent and this place has done it, so that it cannot move any more."""
        if self._workload.acknowledged < self._workload.count:
            return False
        if place == STORE:
            return not quiet.left(self._rig.settings)
        return not self._rig.progress.behind(place, self._workload.ends)

    def _until(self, true: Callable[[], bool], what: str, limit_s: float = RECOVERY_S) -> None:
        give_up = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > give_up:
                raise Hang(f"{what} stands still for {limit_s:.0f} s")
            time.sleep(0.01)


def _ended_well(report: Report, right: frozenset[int]) -> Check:
    check = Check(ENDED_WELL)
    for name, exits in report.exits.items():
        check.compared += sum(exits.values())
        for code in exits.keys() - {0, -9, -15, 70} - right:
            check.differ(f"{name} ended {exits[code]} times with {code}", exits[code])
    return check

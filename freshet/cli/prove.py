"""prove: the line under fire, judged by an oracle."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freshet.cli.exits import Exit, Refusal
from freshet.cli.progress import bars
from freshet.settings import Settings

if TYPE_CHECKING:
    from freshet.prove.run import Order
    from freshet.prove.scenarios import Scenario
    from freshet.prove.verdict import Report


def prove(
    events: Annotated[int, typer.Option(help="Events to send.", min=1_000)] = 100_000,
    kills: Annotated[int, typer.Option(help="Kills, where the scenario does not say how many.", min=0)] = 10,
    workers: Annotated[int, typer.Option(help="Workers.", min=1, max=8)] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events and the same faults.")] = 1,
    scenario: Annotated[str, typer.Option(help="Which faults; `list` shows all scenarios.")] = "kills",
    engine: Annotated[
        Literal["faust", "flink"], typer.Option(help="What folds. Flink: one job, of --workers subtasks.")
    ] = "faust",
    rate: Annotated[float, typer.Option(help="Events a second.", min=10)] = 5_000.0,
    controls: Annotated[
        bool, typer.Option("--controls", help="Run every negative control instead; each must be caught.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep logs and data although it passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Prove exactly-once: a line of its own, faults under load, then every store against an oracle.

    Starts its own broker, Redis, workers and sinks in a folder under the home folder, and stops them. Exit code 0:
    nothing was lost, doubled or different (with --controls: every broken line was caught). 1: FAILED, HANG or NODATA;
    logs and data are kept, and the command that repeats it is printed.
    """
    from freshet.prove.run import Order
    from freshet.prove.scenarios import CONTROLS, SCENARIOS

    every = SCENARIOS | CONTROLS
    if scenario not in every:
        lines = [f"  {name}: {each.says}" for name, each in every.items()]
        raise Refusal(Exit.USAGE, "\n".join([f"there is no scenario {scenario!r}; there are", *lines]))
    able = [name for name, each in every.items() if engine in each.engines]
    if not controls and scenario not in able:
        raise Refusal(Exit.USAGE, f"{scenario!r} is not for {engine}; there are {', '.join(able)}")
    chosen = [each for each in CONTROLS.values() if engine in each.engines] if controls else [every[scenario]]
    reports = [_run(Order(each, events, kills, workers, seed, rate, engine), keep) for each in chosen]
    if as_json:
        found = [report.to_json() for report in reports]
        typer.echo(json.dumps(found if controls else found[0], indent=1))
    elif controls:
        _show_controls(reports)
    else:
        _show(reports[0])
    if not all(_as_wanted(each, report) for each, report in zip(chosen, reports, strict=True)):
        raise typer.Exit(Exit.NO)


def _run(order: "Order", keep: bool) -> "Report":
    from freshet.prove.run import prove as run

    settings = Settings()
    folder = settings.home / "prove" / f"{order.scenario.name}-{order.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    with bars() as tell:
        return run(order, folder, settings.cache_dir, tell, keep=keep)


def _as_wanted(scenario: "Scenario", report: "Report") -> bool:
    return report.caught if scenario.is_control else report.verdict == "PASSED"


def _show_controls(reports: list["Report"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("broken line", "verdict", "lost", "doubled", "mismatches", "", title="Negative controls")
    for r in reports:
        caught = "[green]caught[/green]" if r.caught else "[red]not caught[/red]"
        table.add_row(r.scenario, str(r.verdict), f"{r.lost:,}", f"{r.doubled:,}", f"{r.mismatches:,}", caught)
    Console().print(table)


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    title = f"Faults of {report.scenario}, seed {report.seed}"
    faults = Table("at, s", "fault", "detail", "behind", "recovered, s", title=title)
    for f in report.faults:
        recovered = "-" if f.recovered_s is None else f"{f.recovered_s:.1f}"
        faults.add_row(f"{f.at_s:.1f}", f.fault, escape(f.detail), f"{f.behind:,}", recovered)
    console.print(faults)
    checks = Table("check", "compared", "mismatches", title="Verdict")
    for check in report.checks:
        style = "red" if check.mismatches else ""
        checks.add_row(check.name, f"{check.compared:,}", f"{check.mismatches:,}", style=style)
    console.print(checks)
    for check in report.checks:
        for example in check.examples:
            console.print(f"[red]{escape(check.name)}:[/red] {escape(example)}")
    slowest = "-" if report.slowest_s is None else f"{report.slowest_s:.1f} s"
    console.print(
        f"{report.sent:,} sent · {report.applied:,} applied · {report.lost:,} lost · {report.doubled:,} doubled · "
        f"{report.late:,} late · {report.duplicate:,} duplicate · {report.rejected:,} rejected\n"
        f"{report.users:,} users · {report.items:,} items · fingerprint {report.fingerprint} · {report.kills} kills · "
        f"slowest recovery {slowest} · line {report.line_s:.0f} s, checks {report.check_s:.0f} s\nexits {report.exits}"
    )
    console.print(f"[{'green' if report.verdict == 'PASSED' else 'red'}]{report.verdict}[/] {escape(report.why)}")
    if report.verdict != "PASSED":
        console.print(f"logs and data: {report.folder}\nagain: {report.again}", soft_wrap=True)


COMMANDS = (prove,)

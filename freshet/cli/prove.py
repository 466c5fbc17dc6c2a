"""prove: the line under fire, judged by an oracle."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.exits import Exit, Refusal
from freshet.cli.progress import bars
from freshet.settings import Settings

if TYPE_CHECKING:
    from freshet.prove.verdict import Report


def prove(
    events: Annotated[int, typer.Option(help="Events to send.", min=1_000)] = 100_000,
    kills: Annotated[int, typer.Option(help="Faults of a scenario that repeats one, e.g. kills.", min=0)] = 10,
    workers: Annotated[int, typer.Option(help="Workers.", min=1, max=8)] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events and the same faults.")] = 1,
    scenario: Annotated[str, typer.Option(help="Which faults.")] = "kills",
    rate: Annotated[float, typer.Option(help="Events a second.", min=10)] = 5_000.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep logs and data although it passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Prove exactly-once: a line of its own, faults under load, then every store against an oracle.

    Starts its own broker, Redis, workers and sinks in a folder under the home folder, and stops them. Exit code 0:
    nothing was lost, doubled or different. 1: FAILED, HANG or NODATA; logs and data are kept, and the command that
    repeats it is printed.
    """
    from freshet.prove.run import Order
    from freshet.prove.run import prove as run
    from freshet.prove.scenarios import CONTROLS, SCENARIOS
    from freshet.prove.verdict import Verdict

    if scenario not in SCENARIOS | CONTROLS:
        raise Refusal(Exit.USAGE, f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    settings = Settings()
    folder = settings.home / "prove" / f"{scenario}-{seed}-{time.strftime('%H%M%S')}"
    with bars() as tell:
        report = run(
            Order((SCENARIOS | CONTROLS)[scenario], events, kills, workers, seed, rate),
            folder,
            settings.cache_dir,
            tell,
            keep=keep,
        )
    typer.echo(json.dumps(report.to_json(), indent=1)) if as_json else _show(report)
    if report.verdict is not Verdict.PASSED:
        raise typer.Exit(Exit.NO)


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    faults = Table(
        "at, s", "fault", "detail", "behind", "recovered, s", title=f"Faults of {report.scenario}, seed {report.seed}"
    )
    for f in report.faults:
        recovered = "-" if f.recovered_s is None else f"{f.recovered_s:.1f}"
        faults.add_row(f"{f.at_s:.1f}", f.fault, escape(f.detail), f"{f.behind:,}", recovered)
    console.print(faults)
    checks = Table("check", "compared", "mismatches", title="Stores")
    for check in report.checks:
        checks.add_row(
            check.name, f"{check.compared:,}", f"{check.mismatches:,}", style="red" if check.mismatches else ""
        )
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

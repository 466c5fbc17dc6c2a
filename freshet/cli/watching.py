"""verify, drift: what says whether the line does as it promises, and whether the world has changed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.exits import Exit
from freshet.cli.progress import bars
from freshet.cli.reach import require
from freshet.settings import Settings

if TYPE_CHECKING:
    from monitoring.report import VerifyReport

AsJson = Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")]


def verify(
    served: Annotated[
        bool, typer.Option("--served", help="Compare logged answers with what training sees, instead of the stores.")
    ] = False,
    at_least: Annotated[int, typer.Option(help="With --served: fail on fewer logged answers.", min=1)] = 1,
    wait: Annotated[float, typer.Option(help="Give up when the line is not quiet after so many seconds.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Prove the features: recompute them from the raw events and compare with every store.

    An oracle in SQL, which shares no code with the line, recomputes every user's and item's features and compares with
    Kafka, Redis and the offline store. Waits until no events are on their way. Exit code 0 only if nothing differs.
    """
    settings = Settings()
    require(settings, "kafka", "redis")
    with bars() as progress:
        if served:
            from monitoring import skew

            report = skew.run(settings, at_least=at_least, progress=progress, limit_s=wait)
        else:
            from monitoring import verify as verification

            report = verification.run(settings, progress=progress, limit_s=wait)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(Exit.NO)


def _show(report: "VerifyReport") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if report.partitions:
        counts = Table("partition", "events", "applied", "late", "duplicate", "rejected", title="Raw events")
        for p in report.partitions:
            row = (p.partition, p.events, p.applied, p.late, p.duplicate, p.rejected)
            counts.add_row(*(f"{n:,}" for n in row))
        console.print(counts)
    checks = Table("check", "compared", "mismatches", title="Verdict")
    for check in report.checks:
        checks.add_row(
            check.name, f"{check.compared:,}", f"{check.mismatches:,}", style="red" if check.mismatches else ""
        )
    console.print(checks)
    for check in report.checks:
        for example in check.examples:
            console.print(f"[red]{escape(check.name)}:[/red] {escape(example)}")
    if report.by_time is not None:
        late = report.by_time
        console.print(
            f"Joined by time: {late.behind:,} of {late.answers:,} answers ({late.share:.1%}) came before an event of "
            f"their user was there; it was then on its way since {late.lag_ms['p50']:.0f} ms (p50), "
            f"{late.lag_ms['p99']:.0f} ms (p99), {late.lag_ms['worst']:.0f} ms (worst)"
        )
        if late.unread:
            console.print(f"{late.unread:,} more answers fell back because the online store did not answer in time")
    verdict = "[green]0 mismatches[/green]" if report.ok else f"[red]{report.mismatches:,} mismatches[/red]"
    console.print(f"{verdict} · {report.users:,} users · {report.items:,} items · {report.seconds:.0f} s")


def drift(
    window: Annotated[float, typer.Option(help="Hours of answers to look at, up to now.", min=0.01)] = 24.0,
    output: Annotated[
        Path | None, typer.Option(help="The HTML report (default: reports/drift.html in the home folder).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is served lately with what the model was trained on.

    Writes an HTML report, drift.json and drift.prom beside it. Exit code 1 when drift is found.
    """
    from monitoring import drift as watch

    settings = Settings()
    require(settings, "kafka")
    with bars() as progress:
        verdict = watch.run(settings, window_s=window * 3_600, html=output, progress=progress)
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=1))
    else:
        _show_drift(verdict)
    if verdict.drifted:
        raise typer.Exit(Exit.NO)


def _show_drift(verdict: "watch.DriftVerdict") -> None:  # type: ignore[name-defined] # noqa: F821 - imported late
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("column", "score", "threshold", "", title="Drift")
    for column in verdict.columns:
        table.add_row(
            column.name,
            f"{column.score:.3f}",
            f"{column.threshold:.3f}",
            "[red]drifted[/red]" if column.drifted else "",
        )
    console.print(table)
    word = "[red]drift[/red]" if verdict.drifted else "[green]no drift[/green]"
    console.print(
        f"{word} · {verdict.drifted_columns} of {len(verdict.columns)} columns, alarm at {verdict.alarm_at} · "
        f"{verdict.answers:,} answers, bundle {verdict.bundle} · {verdict.html}"
    )


COMMANDS = (verify, drift)

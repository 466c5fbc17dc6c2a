"""items, simulate, backfill: a catalogue, events that nobody made, and the offline store made from all events."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.exits import Exit
from freshet.cli.progress import bars
from freshet.cli.reach import require


def simulate(
    events: Annotated[int, typer.Option(help="Events of history to plant.", min=1)] = 200_000,
    users: Annotated[int | None, typer.Option(help="Users (default: one for every hundred events).", min=50)] = None,
    items: Annotated[int, typer.Option(help="Items in the catalogue.", min=50)] = 1_000,
    days: Annotated[float, typer.Option(help="Days that the history spans, up to now.", min=0.1)] = 30.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 1,
    loop: Annotated[
        bool, typer.Option("--loop", help="Instead: let the planted users ask for recommendations and click.")
    ] = False,
    requests: Annotated[int, typer.Option(help="With --loop: how many recommendations.", min=1)] = 4_000,
    live: Annotated[bool, typer.Option("--live", help="Instead: a steady stream through ingest, to Ctrl-C.")] = False,
    rate: Annotated[float, typer.Option(help="With --live: events a second.", min=0.1)] = 1_000.0,
    seconds: Annotated[float | None, typer.Option(help="With --live: stop after so long.", min=0.1)] = None,
    shift: Annotated[bool, typer.Option("--shift", help="With --live: tastes and prices that have changed.")] = False,
) -> None:
    """Plant a shop with users of hidden tastes, and let it live.

    Without --loop or --live: sends the history of such a shop. With --loop: its users ask the running service for lists
    and click as their taste says, half of them on a popularity baseline, and the lift is measured.
    """
    from freshet.settings import get_settings
    from streams import simulate as simulation

    settings = get_settings()
    with bars() as progress:
        if loop:
            require(settings, "ingest", "serve")
            report = simulation.closed_loop(settings, requests, seed=seed, progress=progress)
        elif live:
            require(settings, "ingest")
            flow = simulation.live(settings, rate, seconds, seed, shift, progress=progress)
        else:
            require(settings, "kafka")
            sent = simulation.run(
                settings, events=events, users=users, items=items, days=days, seed=seed, progress=progress
            )
    if loop:
        for arm in report.arms:
            typer.echo(
                f"{arm.arm}: {arm.requests:,} lists, click-through {arm.ctr:.4f} "
                f"(expected {arm.expected_ctr:.4f}, the best possible {arm.best_ctr:.4f})"
            )
        if report.lift is not None:
            typer.echo(f"lift {report.lift.lift:+.1%}, 95% interval {report.lift.low:+.1%} to {report.lift.high:+.1%}")
        if report.errors:
            typer.echo(f"{report.errors} requests failed, last: {report.last_error}", err=True)
            raise typer.Exit(Exit.NO)
    elif live:
        typer.echo(f"{flow.events:,} events in {flow.seconds:.0f} s ({flow.per_second:,.0f}/s), {flow.refused} refused")
        if flow.errors:
            typer.echo(f"{flow.errors} requests failed, last: {flow.last_error}", err=True)
            raise typer.Exit(Exit.NO)
    else:
        typer.echo(f"{sent.records:,} records sent in {sent.seconds:.1f} s, {sent.items:,} items")


def backfill() -> None:
    """Fold the archive into the offline store: features for training, equal to those that were served.

    Run it after feature_repo/features.py changed, and before training. Readers see the old rows until all new ones are
    there.
    """
    from freshet.settings import get_settings
    from streams.backfill import backfill as run

    settings = get_settings()
    require(settings, "kafka")
    with bars() as progress:
        report = run(settings, progress=progress)
    typer.echo(
        f"{report.applied:,} events folded ({report.late:,} late, {report.duplicate:,} duplicates, {report.rejected:,} "
        f"rejected) into {report.user_rows:,} user rows and {report.item_rows:,} item rows in {report.seconds:.1f} s"
    )


def items(
    path: Annotated[Path, typer.Argument(help="A CSV, or JSON lines: item_id, title, categories, ...", exists=True)],
) -> None:
    """Put the items of a file into the catalogue. An item that is there already is replaced."""
    from freshet.settings import get_settings
    from streams.catalogue import import_file

    settings = get_settings()
    require(settings, "kafka")
    with bars() as progress:
        count = asyncio.run(import_file(settings, path, progress))
    typer.echo(f"{count:,} items are in the catalogue")


COMMANDS = (items, simulate, backfill)

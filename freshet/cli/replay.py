"""replay: history from files, as events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli import values

if TYPE_CHECKING:
    from streams.replay import Source

app = typer.Typer(
    no_args_is_help=True,
    help="Send history from files as events, in the order in which it happened. A stopped replay resumes where it was.",
)

File = Annotated[Path, typer.Option(help="The file or folder.", exists=True, show_default=False)]
Speed = Annotated[
    float,
    typer.Option(metavar="max|FACTOR", help="Seconds of history that pass in one second, or max.", parser=values.speed),
]
From = Annotated[
    int | None,
    typer.Option("--from", metavar="INSTANT", help="Only events at or after this instant.", parser=values.instant),
]
To = Annotated[
    int | None,
    typer.Option("--to", metavar="INSTANT", help="Only events before this instant.", parser=values.instant),
]
Duplicates = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Send this share of the events twice, e.g. 0.05 or 5%.", parser=values.share),
]
Seed = Annotated[int, typer.Option(help="Chooses which events are sent twice.")]
Rebase = Annotated[
    int | None,
    typer.Option(
        metavar="INSTANT",
        help="Move all times so that the last event is at this instant, e.g. now.",
        parser=values.instant,
    ),
]
Fresh = Annotated[bool, typer.Option("--again", help="Send everything again instead of resuming.")]


@app.command()
def movielens(
    path: File,
    speed: Speed = "max",  # type: ignore[assignment] # typer parses the default as it parses the word
    start: From = None,
    end: To = None,
    duplicates: Duplicates = "0",  # type: ignore[assignment]
    seed: Seed = 0,
    rebase_to: Rebase = None,
    again: Fresh = False,
) -> None:
    """A MovieLens folder: 100K (u.data), 1M (ratings.dat), 10M, 20M or later (ratings.csv)."""
    from streams.replay import MovieLens

    _play(MovieLens(path), speed, start, end, duplicates, seed, rebase_to, again)


@app.command()
def amazon(
    path: File,
    meta: Annotated[
        Path | None, typer.Option(help="The collection's metadata file: titles and categories.", exists=True)
    ] = None,
    speed: Speed = "max",  # type: ignore[assignment]
    start: From = None,
    end: To = None,
    duplicates: Duplicates = "0",  # type: ignore[assignment]
    seed: Seed = 0,
    rebase_to: Rebase = None,
    again: Fresh = False,
) -> None:
    """A file of Amazon reviews: JSON lines or CSV, also .gz."""
    from streams.replay import AmazonReviews

    _play(AmazonReviews(path, meta), speed, start, end, duplicates, seed, rebase_to, again)


@app.command()
def table(
    path: File,
    column: Annotated[
        list[str],
        typer.Option(
            "--column",
            "-c",
            metavar="FIELD=COLUMN",
            help="Which column holds a field, e.g. -c user_id=customer. Others are looked for by their own names.",
        ),
    ] = [],  # noqa: B006 - typer reads it and makes a list of its own
    time_unit: Annotated[str, typer.Option(help="Of numeric times: s, ms or us.")] = "s",
    event_type: Annotated[str, typer.Option(help="Type of the events, where no column says it.")] = "view",
    items: Annotated[
        Path | None, typer.Option(help="A catalogue file (see docs/how-to/replay.md).", exists=True)
    ] = None,
    speed: Speed = "max",  # type: ignore[assignment]
    start: From = None,
    end: To = None,
    duplicates: Duplicates = "0",  # type: ignore[assignment]
    seed: Seed = 0,
    rebase_to: Rebase = None,
    again: Fresh = False,
) -> None:
    """Any CSV or Parquet file with a row per event."""
    from streams.replay import Table

    source = Table(path, values.mapping(column), time_unit=time_unit, event_type=event_type, items=items)
    _play(source, speed, start, end, duplicates, seed, rebase_to, again)


def _play(
    source: "Source",
    speed: float,
    start: int | None,
    end: int | None,
    duplicates: float,
    seed: int,
    rebase_to: int | None,
    again: bool,
) -> None:
    from freshet.cli.progress import bars
    from freshet.cli.reach import require
    from freshet.settings import get_settings
    from streams.replay import replay

    settings = get_settings()
    require(settings, "kafka")
    with bars() as progress:
        done = replay(
            settings,
            source,
            None if speed == float("inf") else speed,
            start,
            end,
            not again,
            progress,
            duplicates=duplicates,
            seed=seed,
            rebase_to=rebase_to,
        )
    sent = done.records - done.already
    typer.echo(f"{sent:,} records sent in {done.seconds:.1f} s ({done.per_second:,.0f}/s), {done.items:,} items")
    if done.already:
        typer.echo(f"{done.already:,} had been sent before (--again sends them again)")
    if done.duplicates:
        typer.echo(f"{done.duplicates:,} of {done.records:,} were sent twice")
    typer.echo(f"event times from {values.day(done.first)} to {values.day(done.last)}")

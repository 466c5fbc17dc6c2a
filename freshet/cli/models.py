"""train, tune, training-set, off-policy, recommend, recommend-all, export: from features to bundles, and to answers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.exits import Exit, Refusal
from freshet.cli.progress import bars
from freshet.cli.reach import require
from freshet.cli.recommend import recommend


def train(
    split: Annotated[float, typer.Option(help="Part of the data, by time, to train on.", min=0.5, max=0.95)] = 0.8,
    protocol: Annotated[list[str], typer.Option(help="static or prequential; may be given twice. Default: both.")] = [],  # noqa: B006
    questions: Annotated[int, typer.Option(help="Most questions to ask of each protocol.", min=100)] = 5_000,
    register: Annotated[bool, typer.Option(help="Register the bundle and make it champion.")] = True,
    threads: Annotated[int, typer.Option(help="Threads of the training.", min=1)] = 2,
    workers: Annotated[
        int, typer.Option(help="Processes that fit LightGCN and DIN, here or on the Ray cluster of RAY_ADDRESS.", min=1)
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train the cascade on point-in-time features, compare it with its baselines, register a signed bundle.

    Reads the archive and the offline store: run `freshet backfill` first. Serving takes the new bundle up by itself.
    One that is clearly worse than popularity or than the champion, or fails an edge case, is refused (exit code 1).
    """
    from freshet.settings import get_settings
    from training import report
    from training.pipeline import PROTOCOLS
    from training.pipeline import train as run

    if wrong := set(protocol) - set(PROTOCOLS):
        raise typer.BadParameter(f"{min(wrong)!r} is no protocol; there are {' and '.join(PROTOCOLS)}")
    settings = get_settings()
    require(settings, "kafka")
    with bars() as progress:
        result = run(
            settings,
            split=split,
            protocols=tuple(protocol) or PROTOCOLS,
            most_questions=questions,
            register=register,
            threads=threads,
            workers=workers,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.plain(result), indent=1))
        raise typer.Exit(Exit.NO if result.gate.reasons else Exit.OK)
    from rich.console import Console

    console = Console()
    for table in report.tables(result.results, result.dials, result.prices):
        console.print(table)
    console.print(report.summary(result), style="red" if result.gate.reasons else None)
    raise typer.Exit(Exit.NO if result.gate.reasons else Exit.OK)


def tune(
    trials: Annotated[int, typer.Option(help="Trainings of single stages to try.", min=10, max=10_000)] = 60,
    split: Annotated[float, typer.Option(help="Part of the data, by time, to look at.", min=0.5, max=0.95)] = 0.8,
) -> None:
    """Search for better parameters of the models on your data, on validation only, for the next `freshet train`.

    Keeps what it finds in `parameters.json` under FRESHET_HOME; remove that file to go back to what ships.
    """
    from freshet.settings import get_settings
    from training import parameters
    from training.tuning import tune as run

    settings = get_settings()
    require(settings, "kafka")
    with bars() as progress:
        tuned = run(settings, trials, split, progress)
    for what, (shipped, found) in tuned.scores.items():
        typer.echo(f"{what}: {found:.4f} on validation, as shipped {shipped:.4f}")
    typer.echo(f"in {tuned.seconds:.0f} s; the next `freshet train` takes {parameters.path(settings)}")


def training_set(
    labels: Annotated[
        Path, typer.Argument(help="A Parquet file with user_id, item_id, event_timestamp, and columns of your own.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make, of Parquet files in the order of the labels.")],
) -> None:
    """Give each of your labels every feature as it was known at its time, to train a model of your own on.

    Reads the offline store: run `freshet backfill` first.
    """
    from feature_repo import offline
    from feature_repo.features import user
    from freshet.settings import get_settings
    from training.point_in_time import BadLabels
    from training.point_in_time import training_set as run

    settings = get_settings()
    if not offline.folder(settings, user).exists():
        raise Refusal(Exit.NO, f"there are no features in {settings.offline_dir} yet: run `freshet backfill` first")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}")
    try:
        with bars() as progress:
            rows = run(settings, labels, out, progress)
    except BadLabels as error:
        raise Refusal(Exit.USAGE, str(error)) from None
    typer.echo(f"{rows:,} labels with their features in {out}")


def off_policy(
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate what other ways to explore would have got, from logged propensities and clicks.

    Reads the archive. Intervals hold 95%, over users; where the effective number of decisions is small, believe little.
    """
    from freshet.settings import get_settings
    from training.off_policy import NothingLogged, estimates, read

    try:
        decisions = read(get_settings())
        found = estimates(decisions)
    except NothingLogged as error:
        raise Refusal(Exit.NO, str(error)) from None
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    clicks = sum(d.reward for d in decisions)
    table = Table(
        "choice", "IPS", "SNIPS", "DR", "effective", title=f"{len(decisions):,} explored places, {clicks:,.0f} clicks"
    )
    for one in found:
        cells = (f"{x.mean:.4f} [{x.low:.4f}, {x.high:.4f}]" for x in (one.ips, one.snips, one.dr))
        table.add_row(one.policy, *cells, f"{one.effective:,.0f}")
    Console().print(table)


def recommend_all(
    out: Annotated[Path, typer.Option(help="The Parquet file to write; one that is there is replaced.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many items for each user.")] = 20,
) -> None:
    """Recommend for every known user, by the champion, into a Parquet file. Needs Kafka and the registry only."""
    from bentos.house import BadRules
    from freshet.batch import NoChampion
    from freshet.batch import recommend_all as run
    from freshet.settings import get_settings

    settings = get_settings()
    require(settings, "kafka")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}")
    try:
        with bars() as progress:
            users = run(settings, out, k, progress)
    except NoChampion as error:
        raise Refusal(Exit.NO, str(error)) from None
    except BadRules as error:
        raise Refusal(Exit.USAGE, str(error)) from None
    typer.echo(f"{users:,} users in {out}")


def export(
    folder: Annotated[Path, typer.Argument(help="The folder to make. It must not have anything in it.")],
    most_mb: Annotated[float, typer.Option(help="The most that all files may take, in MB of 1,000,000 bytes.")] = 20.0,
) -> None:
    """Write the champion's recall and ranking for a device: ONNX, all items as they are now, and a runnable example.

    A catalogue that does not fit as it is gets int8 vectors and fewer links an item; one that does not fit then is
    refused. Needs Kafka, the registry, and the packages of Freshet's extra `export`.
    """
    from freshet.batch import champion, items_now
    from freshet.settings import get_settings

    try:
        from bentos.ondevice import export as ondevice
    except ModuleNotFoundError as error:
        raise Refusal(Exit.USAGE, f"there is no {error.name} here: pip install 'freshet[export]'") from None
    settings = get_settings()
    require(settings, "kafka")
    made = ondevice.export(folder, champion(settings), items_now(settings), most_mb)
    for name, size in made.bytes.items():
        typer.echo(f"{size / 1e6:8.3f} MB  {name}")
    cut = "exact" if made.form == "float32" else f"{made.form} vectors, {made.links} of {made.links_of} links an item"
    typer.echo(f"{sum(made.bytes.values()) / 1e6:8.3f} MB  {made.items:,} items, {cut}, in {folder}")
    if made.left_out:
        typer.echo(f"left out, as it runs on the server only: {made.left_out}", err=True)


COMMANDS = (train, tune, training_set, off_policy, recommend, recommend_all, export)

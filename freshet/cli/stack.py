"""up, down, status, flink: the life of the local stack."""

from typing import Annotated

import typer

from freshet.cli.exits import Exit, Refusal

Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="PARTS",
        help="Only these, comma-separated: kafka, redis, topics, features, worker, sink-online, sink-archive, "
        "ingest, serve.",
    ),
]


def up(
    only: Only = [],  # noqa: B006 - typer reads it and makes a list of its own
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all parts are well, and leave them running.")
    ] = False,
    wait: Annotated[float, typer.Option(help="With --detach: give up after this many seconds.", min=1)] = 180.0,
) -> None:
    """Start the local stack: Kafka, Redis, the worker, the sinks, ingest and serving.

    Stays in the foreground, restarts what dies, and stops everything on Ctrl-C. Free ports are found; where everything
    listens is written to stack.env in the home folder, which the other commands read. Data of an earlier run is kept.
    """
    from freshet.cli.settings import strangers
    from freshet.settings import Settings
    from freshet.stack import up as life
    from freshet.stack.home import AlreadyRuns
    from freshet.stack.plan import chosen

    for name in strangers():
        typer.echo(f"warning: {name} is set, but is no setting: it is ignored", err=True)
    settings, names = Settings(), [name.strip() for word in only for name in word.split(",") if name.strip()]
    try:
        if detach:
            life.detached(settings, names, wait)
            _show(life.status(settings.home))
        else:
            life.foreground(settings, names)
    except AlreadyRuns:
        now = life.status(settings.home)
        typer.echo(f"A stack already runs in {settings.home}:", err=True)
        _show(now)
        missing = set(chosen(names)) - {part["name"] for part in now["parts"]}
        if missing:
            raise Refusal(
                Exit.NO,
                f"it does not include {', '.join(sorted(missing))}: "
                "`freshet down` first, then up with all parts that you want",
            ) from None


def down() -> None:
    """Stop the local stack. Its data stays."""
    from freshet.settings import Settings
    from freshet.stack import up as life

    home = Settings().home
    typer.echo(f"Stopped the stack in {home}." if life.down(home) else f"Nothing runs in {home}.", err=True)


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON: address, process id, health and memory of each part.")
    ] = False,
) -> None:
    """Show each part of the running stack: its address, its process, how it does.

    Exit code 0 when every part is well, 1 when one is not, 3 when nothing runs.
    """
    from freshet.settings import Settings
    from freshet.stack import up as life
    from freshet.stack.parts import WELL, Health

    now = life.status(Settings().home)
    if as_json:
        import json

        typer.echo(json.dumps(now, indent=1))
    elif now["running"]:
        _show(now)
    if not now["running"]:
        raise Refusal(Exit.DOWN, f"nothing runs in {now['home']}: run `freshet up`")
    if not all(Health(part["health"]) in WELL for part in now["parts"]):
        raise typer.Exit(Exit.NO)


def _show(now: dict[str, object]) -> None:
    from rich.console import Console

    from freshet.stack.board import table

    parts = now["parts"]
    assert isinstance(parts, list)
    Console().print(table(parts))


def flink() -> None:
    """Run the line as a Flink job in place of the worker, in the foreground.

    On a cluster inside its own process, with its checkpoints in the home folder; the next start goes on from the
    newest. Kafka must be up, with the topics (`freshet up --only kafka,topics`). `make flink` installs PyFlink.
    """
    import os

    from freshet.settings import Settings
    from freshet.stack.flink import command

    found, env = command(Settings())
    os.execve(found[0], found, os.environ | env)


COMMANDS = (up, down, status, flink)

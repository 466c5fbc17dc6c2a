"""The program: its global options, its commands in the order of the help, and the one place where errors end."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from freshet.cli import data, demo, models, prove, replay, settings, stack, watching
from freshet.cli.exits import HELP, Exit, end, explain

app = typer.Typer(
    name="freshet",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A self-hosted, real-time recommender whose features can be proved.",
    epilog=HELP,
)


@app.callback()
def options(
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the stack and its data, instead of FRESHET_HOME (default: .freshet).", show_default=False
        ),
    ] = None,
) -> None:
    """Take the options that every command has."""
    if home is not None:
        os.environ["FRESHET_HOME"] = str(home)


app.add_typer(replay.app, name="replay", rich_help_panel="Data")
for panel, module in (
    ("The stack", demo),
    ("The stack", stack),
    ("Data", data),
    ("Models", models),
    ("Proof and watch", watching),
    ("Proof and watch", prove),
    ("Settings", settings),
):
    for command in module.COMMANDS:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """The entry point of the `freshet` program."""
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        refusal = explain(error)
        if refusal is None:
            traceback.print_exc()
            sys.exit(Exit.BUG)
        end(refusal)

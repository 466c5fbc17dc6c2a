"""demo: the whole line at once."""

from typing import Annotated

import typer


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Without a person: measure, check, write demo.json, stop everything.")
    ] = False,
) -> None:
    """See it all: a planted shop, its history folded, a model trained, recommendations that change as events arrive.

    Leaves everything running with the console open to look at (stop it with `freshet down`). With --once it
    measures and checks instead, and exits 0 only if every check held.
    """
    from freshet.demo import main

    raise typer.Exit(main(once))


COMMANDS = (demo,)

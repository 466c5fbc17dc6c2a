"""The `freshet` command. Commands only read options, call the room that does the work, and print what it returns.

Every command imports what it needs when it runs, so that `freshet --help` is quick. Exit codes are in `exits`.
"""

from freshet.cli.app import main

__all__ = ["main"]

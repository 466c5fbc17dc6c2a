"""What the exit code of every command means, and how an error becomes one."""

import sys
from enum import IntEnum

from pydantic import ValidationError

from freshet.settings import variable


class Exit(IntEnum):
    """Exit codes of the `freshet` command."""

    OK = 0
    NO = 1
    """It ran, and the answer is no: a check failed, drift was found, a part did not come up."""
    USAGE = 2
    """A wrong option, setting or input: nothing was done."""
    DOWN = 3
    """Something that the command needs does not answer, e.g. the stack is not up."""
    BUG = 70
    """A fault of Freshet's own; the traceback is shown."""
    INTERRUPTED = 130


HELP = (
    "Exit codes: 0 done · 1 ran, and the answer is no (a check failed, drift found, a part not well) · "
    "2 wrong option, setting or input · 3 a needed server does not answer (run `freshet up`) · "
    "70 a fault of Freshet itself · 130 interrupted"
)


class Refusal(Exception):
    """Ends a command with `code` and a message that says what to do."""

    def __init__(self, code: Exit, message: str) -> None:
        """`message` is shown as it is."""
        super().__init__(message)
        self.code = code


OURS = ("freshet", "streams", "feature_repo", "training", "bentos", "monitoring")


def explain(error: BaseException) -> Refusal | None:
    """The refusal that an error stands for, or None for a fault of our own.

    Our rooms raise errors of their own classes with a text for people: a `ValueError` for input that is wrong, anything
    else for what did not work. An error that no room has named is a fault.
    """
    match error:
        case Refusal():
            return error
        case KeyboardInterrupt():
            return Refusal(Exit.INTERRUPTED, "interrupted")
        case ValidationError() if error.title == "Settings":
            wrong = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
            return Refusal(Exit.USAGE, "\n".join(_wrong_setting(each["loc"], each["msg"]) for each in wrong))
    if type(error).__module__.partition(".")[0] in OURS:
        return Refusal(Exit.USAGE if isinstance(error, ValueError) else Exit.NO, str(error))
    return None


def _wrong_setting(where: tuple[int | str, ...], what: str) -> str:
    name = str(where[0]) if where else "settings"
    return f"{variable(name)}: {what.removeprefix('Value error, ')}"


def end(refusal: Refusal) -> None:
    """Say why, on standard error, and leave with the code."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(
        str(refusal), style="red" if refusal.code != Exit.INTERRUPTED else None, markup=False, soft_wrap=True
    )
    sys.exit(refusal.code)

"""The loud way out: when the engine cannot be sure of its state any more, the process ends at once.

Nothing is flushed, committed or handed over on the way: the transaction that is open is aborted by its next owner,
who starts from what was committed. A supervisor restarts the process.
"""

import logging
import os
import sys
from typing import NoReturn

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h: an internal error, as against 1 (wrong use) or 143 (told to stop)."""

log = logging.getLogger(__name__)


def leave(what: str, todo: str, cause: BaseException | None = None) -> NoReturn:
    """End the process with `EXIT_CODE`, saying what happened and what the operator should do."""
    log.critical("%s\n  What to do: %s", what, todo, exc_info=cause)
    for handler in (*logging.getLogger().handlers, *log.handlers):
        handler.flush()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(EXIT_CODE)

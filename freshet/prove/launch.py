"""Starts a program of the line with a hand on it.

`python -m freshet.prove.launch [--control NAME] worker|sinks|backfill ...`

Orders come as lines on standard input, e.g. `kill after_sends 3`: at the third time that point is reached, the process
kills itself. Until an order names a point nothing is wrapped, and the line's own code
has no hooks; `POINTS` is all that the harness knows of its inside.
"""

import errno
import functools
import importlib
import inspect
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from freshet.prove import controls

POINTS: dict[str, tuple[str, str]] = {
    "after_begin": ("streams.engine.transaction:AIOKafkaProducer.begin_transaction", "after"),
    "among_sends": ("streams.engine.transaction:AIOKafkaProducer.send_batch", "after"),
    "after_sends": ("streams.engine.transaction:AIOKafkaProducer.send_offsets_to_transaction", "before"),
    "after_offsets": ("streams.engine.transaction:AIOKafkaProducer.send_offsets_to_transaction", "after"),
    "before_end": ("streams.engine.transaction:AIOKafkaProducer.commit_transaction", "before"),
    "after_end": ("streams.engine.transaction:AIOKafkaProducer.commit_transaction", "after"),
    "in_restore": ("streams.fold.states:Fold.load_own", "before"),
    "in_checkpoint": ("streams.engine.disk:File._write", "before"),
    "after_checkpoint": ("streams.engine.checkpoint:Checkpoint.append", "after"),
    "in_rewriting": ("streams.engine.checkpoint:Checkpoint.add", "after"),
    "after_rewriting": ("streams.engine.checkpoint:Checkpoint.finish", "after"),
    "before_redis": ("feature_repo.compare_and_set:write", "before"),
    "after_redis": ("feature_repo.compare_and_set:write", "after"),
    "in_archive_file": ("streams.sinks.files:os.fsync", "before"),
    "after_archive_file": ("streams.sinks.files:sync_folder", "before"),
    "in_backfill": ("streams.backfill.run:wait", "before"),
    "in_publishing": ("feature_repo.offline:publish", "after"),
}
"""Name -> (what is wrapped, whether the process ends before or after it)."""
PROGRAMS = {
    "worker": ("faust", ["-A", "streams.app", "worker", "-l", "info", "--without-web"]),
    "stock-exactly-once": ("faust", ["-A", "freshet.prove.stock", "worker", "-l", "info", "--without-web"]),
    "stock-at-least-once": ("faust", ["-A", "freshet.prove.stock", "worker", "-l", "info", "--without-web"]),
    "sinks": ("streams.sinks", []),
    "backfill": ("freshet", ["backfill"]),
}
GUARANTEE = "FRESHET_STOCK"
"""Tells `freshet.prove.stock` which guarantee to ask of Faust."""
ORDERS = ("kill", "stop", "enospc")


def find(target: str) -> tuple[Any, str]:
    """What holds the function that `module:path.name` names, and its name. Raises `AttributeError`."""
    module, path = target.split(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def arm(point: str, how: str, nth: int) -> None:
    """Have something happen at the `nth` time from now that this process reaches `point`.

    `kill`: it kills itself. `stop`: it stops itself with SIGSTOP. `enospc`: an `OSError`, as of a disk that is full.
    """
    if how not in ORDERS:
        raise ValueError(f"there is no order {how!r}")
    target, when = POINTS[point]
    owner, name = find(target)
    original: Callable[..., Any] = getattr(owner, name)
    left = [nth]

    def pass_by() -> None:
        left[0] -= 1
        if left[0] == 0:
            setattr(owner, name, original)
            print(f"at {point}: {how}", flush=True)
            if how == "enospc":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapped(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                pass_by()
            result = await original(*arguments, **options)
            if when == "after":
                pass_by()
            return result
    else:

        @functools.wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                pass_by()
            result = original(*arguments, **options)
            if when == "after":
                pass_by()
            return result

    setattr(owner, name, wrapped)


def _obey() -> None:
    for line in sys.stdin:
        how, point, nth = line.split()
        arm(point, how, int(nth))


def main() -> None:
    """Start the program in this process."""
    arguments = sys.argv[1:]
    if arguments[0] == "--control":
        controls.BROKEN[arguments[1]]()
        arguments = arguments[2:]
    module, given = PROGRAMS[arguments[0]]
    if arguments[0].startswith("stock-"):
        os.environ[GUARANTEE] = arguments[0].removeprefix("stock-").replace("-", "_")
    threading.Thread(target=_obey, daemon=True).start()
    sys.argv = [module, *given, *arguments[1:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

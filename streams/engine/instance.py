"""The name of a worker, under which it finds its checkpoint and its partitions again."""

import fcntl
import os

from freshet.settings import AUTO, Settings


def named(settings: Settings) -> Settings:
    """The settings with a name. For `auto` the first of worker-0, worker-1, ... that no process of this home has.

    The name is held by a lock on its folder until the process ends, however it ends.
    """
    if settings.instance != AUTO:
        return settings
    n = 0
    while True:
        folder = settings.home / "state" / f"worker-{n}"
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            n += 1
        else:
            return settings.model_copy(update={"instance": folder.name})

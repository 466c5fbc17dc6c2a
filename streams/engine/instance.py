"""The name of a worker, under which it finds its checkpoints and its partitions again."""

import fcntl
import os
from uuid import uuid4

from freshet.settings import AUTO, Settings


def named(settings: Settings) -> Settings:
    """The settings with a name. For `auto` one that no process of this home has: a dead worker's, or else a new one.

    It is held by a lock on its folder until the process ends, however it ends.
    """
    if settings.instance != AUTO:
        return settings
    state = settings.home / "state"
    for name in (*sorted(path.name for path in state.glob("worker-*")), f"worker-{uuid4().hex[:8]}"):
        (state / name).mkdir(parents=True, exist_ok=True)
        lock = os.open(state / name / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            break
    return settings.model_copy(update={"instance": name})

"""A warm standby: the partitions that other workers own, kept in checkpoints of ours as their changelog grows.

When one of them becomes ours, the restore reads what the checkpoint lacks, and not the changelog from its beginning.
"""

import asyncio
from collections.abc import Iterable

from freshet.settings import Settings
from streams.engine.checkpoint import Checkpoint
from streams.engine.kept import KeptRows, Memory
from streams.engine.leave import leave
from streams.engine.restore import Target, follow

MEMORY = 16 << 20
"""For the rows of each partition that is followed; the others are on disk only."""


class Standby:
    """Of one stage. It must not follow a partition while the worker owns it: both would write to its checkpoint."""

    def __init__(self, settings: Settings, source: str, log_topic: str) -> None:
        self._settings, self._source, self._log_topic = settings, source, log_topic
        self._task: asyncio.Task[None] | None = None
        self.lags: dict[int, int] = {}
        """Of each partition that is followed: records between the end of its changelog and what is here of it."""

    async def start(self, partitions: Iterable[int]) -> None:
        """Follow these partitions from now on, and no others."""
        await self.stop()
        self._task = asyncio.create_task(self._follow(set(partitions)), name=f"standby {self._source}")

    async def stop(self) -> None:
        """Close the checkpoints, which have all that has come."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait(
                [task]
            )  # and not the task itself: being cancelled meanwhile must not be taken for its end
            if not task.cancelled():
                task.result()

    async def _follow(self, partitions: set[int]) -> None:
        replicas, memory = dict[int, Target](), Memory(MEMORY * len(partitions))
        try:
            for p in partitions:
                checkpoint = Checkpoint.of(self._settings, self._log_topic, p)
                replicas[p] = Target(KeptRows(checkpoint, memory, self._settings.checkpoint_rows))
            if replicas:
                await follow(self._settings.kafka, self._log_topic, replicas, self.lags.__setitem__)
        except Exception as error:
            todo = "restart; nothing is lost. If it repeats, look at the cause below, and at the disk of FRESHET_HOME"
            leave(f"{self._source}: the standby of partitions {sorted(partitions)} failed", todo, error)
        finally:
            self.lags.clear()
            for replica in replicas.values():
                replica.rows.close()

"""The agents: which stages there are, and how Faust's life cycle drives them.

`users` folds `events` into `user-features`, hands what it applied to the items through `item-deltas`, and refused
records to `dead-letters`; `items` folds `item-deltas` into `item-features`. How that stays exact is left to
`streams.engine`.
"""

import asyncio
from collections.abc import Sequence

import faust
from faust.types import StreamT

from freshet.settings import Settings
from streams.engine.kept import Memory
from streams.engine.stage import Stage
from streams.engine.transport import Batch, BatchSchema
from streams.fold.items import ItemFold
from streams.fold.users import UserFold
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES


def stages(settings: Settings) -> tuple[Stage, ...]:
    """The two stages of the line."""
    memory, interval_ms = Memory.of(settings), settings.item_commit_interval_ms
    return (
        Stage(settings, EVENTS, USER_FEATURES, lambda partition: UserFold.of(settings, partition), memory),
        Stage(settings, ITEM_DELTAS, ITEM_FEATURES, ItemFold, memory, interval_ms),
    )


def attach(app: faust.App, stages: Sequence[Stage]) -> None:
    """Register an agent for each stage on the app, and what it does when the app rebalances and stops."""
    for stage in stages:
        _agent(app, stage)

    @app.on_rebalance_complete.connect
    async def assigned(*_: object, **__: object) -> None:
        assignment = app.consumer.assignment()
        await asyncio.gather(
            *(stage.assigned({tp.partition for tp in assignment if tp.topic == stage.topic}) for stage in stages)
        )

    @app.on_partitions_revoked.connect
    async def revoked(*_: object, **__: object) -> None:
        await asyncio.gather(*(stage.revoked() for stage in stages))

    @app.on_before_shutdown.connect
    async def stopping(*_: object, **__: object) -> None:
        await asyncio.gather(*(stage.close() for stage in stages))


def _agent(app: faust.App, stage: Stage) -> None:
    source = app.topic(stage.topic, schema=BatchSchema(), acks=False)  # the offset travels in our own transactions

    async def fold(batches: StreamT[Batch]) -> None:
        async for batch in batches:
            await stage.process(batch)

    app.agent(source, name=stage.source)(fold)

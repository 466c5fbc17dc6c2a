"""Faust as it comes: events of each user counted in a `Table`. The two stock negative controls.

`FRESHET_STOCK` is the `processing_guarantee`. Why the line does not use these is told in
docs/explanation/exactly-once.md; here they show that the harness sees what they do.
"""

import os

import faust
from faust.types import StreamT

from freshet.prove.launch import GUARANTEE
from freshet.settings import Settings, get_settings
from streams.topics import EVENTS


def create_app(settings: Settings, guarantee: str) -> faust.App:
    """The app. Its changelog is `<app id>-counts-changelog`."""
    app = faust.App(
        settings.app_id,
        broker=f"kafka://{settings.kafka}",
        processing_guarantee=guarantee,
        store="memory://",
        datadir=str(settings.home / "faust"),
        topic_partitions=settings.partitions,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=10.0,
        web_enabled=False,
    )
    counts = app.Table("counts", default=int, key_type=str, value_type=int, partitions=settings.partitions)

    async def count(events: StreamT[bytes]) -> None:
        async for key, _ in events.items():
            counts[key.decode()] += 1

    events = app.topic(settings.topic(EVENTS), key_serializer="raw", value_serializer="raw", value_type=bytes)
    app.agent(events)(count)
    return app


if GUARANTEE in os.environ:
    app = create_app(get_settings(), os.environ[GUARANTEE])

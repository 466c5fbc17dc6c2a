"""The worker of any stages: Faust gives the process, the consumer group and the agents' loop.

Its parameters come from `FRESHET_*` only. Which stages there are is left to `streams.agents`, and to `streams.app`.
"""

import logging
import sys
from collections.abc import Sequence

import faust
from faust.tables.manager import TableManager
from faust.types import TP

from feature_repo.features import user
from freshet.settings import Settings, SettingsError
from streams import freed
from streams.agents import attach
from streams.engine.metrics import serve_metrics
from streams.engine.stage import Stage
from streams.engine.transport import BatchTransport
from streams.topics import TopicsError, create_topics

SESSION_S = 6.0
"""After so long without a heartbeat a worker's partitions move on; 6 s is the least that Kafka's default allows."""
FETCH_BYTES = 1 << 20
"""Of one partition at once: about 5,000 events, 50 ms of folding."""
BUFFERED_BATCHES = 4
"""Batches that wait for an agent, so at most 4 MiB a topic: Faust stops fetching when the agent is slower."""

log = logging.getLogger(__name__)


class NoTables(TableManager):
    """Faust's own waits a second for tables that may yet be declared; a worker that was killed is back sooner."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class Worker(faust.App):
    """Faust's app, which makes sure of its topics before its consumer starts."""

    settings: Settings
    stages: Sequence[Stage]

    async def on_first_start(self) -> None:
        await super().on_first_start()
        freed.keep()
        log.info("the fold is %s", "compiled" if user.compiled else "in Python, twenty times slower: see the README")
        try:
            await create_topics(self.settings)
            serve_metrics(self.settings, self.stages, self._end_offset)
        except (SettingsError, TopicsError) as error:
            print(f"the worker cannot start: {error}", file=sys.stderr, flush=True)
            raise SystemExit(1) from error

    def _end_offset(self, topic: str, partition: int) -> int | None:
        tp = TP(self.settings.topic(topic), partition)
        return self.consumer.highwater(tp) if tp in self.consumer.assignment() else None


def create_app(settings: Settings, stages: Sequence[Stage]) -> Worker:
    """The Faust app of these settings, with an agent for each stage."""
    datadir = settings.home / "faust"
    datadir.mkdir(parents=True, exist_ok=True)  # Faust makes the last folder only
    app = Worker(
        settings.topic(settings.app_id),
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        store="memory://",
        datadir=str(datadir),
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_group_instance_id=settings.instance,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        stream_wait_empty=False,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=0.3,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=30.0,
        broker_max_poll_records=None,
        broker_check_crcs=False,
        web_enabled=False,
        TableManager=NoTables,
    )
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    app.settings, app.stages = settings, stages
    attach(app, stages)
    return app

"""What the worker tells Prometheus: counts and lag of each partition, commits, rows, restores.

Counts are read from the folds' own meta records when Prometheus asks, so they cost nothing and survive restarts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from freshet.settings import Settings, SettingsError
from streams.fold.states import Fold

COMMIT_SECONDS = Histogram(
    "freshet_commit_seconds",
    "Duration of a transaction, snapshot included.",
    ["source"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
CHECKPOINT_SECONDS = Histogram(
    "freshet_checkpoint_seconds",
    "Duration of rewriting a partition's checkpoint on disk.",
    ["source"],
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
ROWS = Counter("freshet_rows", "States written.", ["source"])
RESTORE_SECONDS = Gauge("freshet_restore_seconds", "Duration of the last restore.", ["source"])
RESTORED = Gauge("freshet_restored_records", "Changelog records that the last restore read.", ["source"])

OUTCOMES = ("applied", "late", "duplicate", "rejected")
EndOffset = Callable[[str, int], int | None]
"""(logical topic, partition) -> the log's end as of the last fetch, if known."""


class Progressing(Protocol):
    """What is watched, e.g. a `Stage`."""

    @property
    def source(self) -> str: ...
    def folds(self) -> Mapping[int, Fold]: ...
    def standby_lags(self) -> Mapping[int, int]: ...


class _Progress(Collector):
    def __init__(self, stages: Iterable[Progressing], end_offset: EndOffset) -> None:
        self._stages, self._end_offset = list(stages), end_offset

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "freshet_events",
            "Records folded since the partition's beginning, by outcome.",
            labels=["source", "partition", "outcome"],
        )
        states = GaugeMetricFamily("freshet_states", "Keys with a state.", labels=["source", "partition"])
        held = GaugeMetricFamily(
            "freshet_states_in_memory",
            "Keys whose state is in memory; the others are on disk.",
            labels=["source", "partition"],
        )
        reads = CounterMetricFamily(
            "freshet_state_reads",
            "States that were read back into memory from disk.",
            labels=["source", "partition"],
        )
        lag = GaugeMetricFamily(
            "freshet_lag_records",
            "Offsets between the log's end and the fold. In item-deltas a few are transaction marks.",
            labels=["source", "partition"],
        )
        standby = GaugeMetricFamily(
            "freshet_standby_lag_records",
            "Offsets between the end of another worker's changelog and what the standby has of it.",
            labels=["source", "partition"],
        )
        for stage in self._stages:
            for partition, behind in stage.standby_lags().items():
                standby.add_metric([stage.source, str(partition)], behind)
            for partition, fold in stage.folds().items():
                labels = [stage.source, str(partition)]
                for outcome in OUTCOMES:
                    events.add_metric([*labels, outcome], getattr(fold.meta, outcome))
                states.add_metric(labels, len(fold.rows))
                held.add_metric(labels, fold.rows.in_memory)
                reads.add_metric(labels, fold.rows.reads)
                end = self._end_offset(stage.source, partition)
                if end is not None:
                    lag.add_metric(labels, max(0, end - max(0, fold.meta.next_offset)))
        yield from (events, states, held, reads, lag, standby)


def serve_metrics(settings: Settings, stages: Iterable[Progressing], end_offset: EndOffset) -> None:
    """Answer on `settings.worker_metrics_port`, in a thread of its own. Raises `SettingsError` if it is taken."""
    try:
        start_http_server(settings.worker_metrics_port, addr=settings.metrics_bind)
    except OSError as error:
        port = settings.worker_metrics_port
        raise SettingsError(
            f"port {port} for metrics cannot be opened ({error.strerror}); set FRESHET_WORKER_METRICS_PORT"
        ) from error
    REGISTRY.register(_Progress(stages, end_offset))

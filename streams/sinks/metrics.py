"""What a sink tells Prometheus, and the port on which it does."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from freshet.settings import SettingsError

FRESHNESS = Histogram(
    "freshet_online_freshness_seconds",
    "From an event's arrival to its state in Redis, of each row written that is younger than an hour.",
    ["view"],
    buckets=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 5, 10, 60),
)
WRITTEN = Counter("freshet_sink_rows_written", "Rows that a sink has written.", ["sink", "topic"])
STALE = Counter(
    "freshet_sink_rows_stale", "Rows that were left out as the store has the same or a newer one.", ["topic"]
)
LAG = Gauge(
    "freshet_sink_lag_records",
    "Offsets between a topic's end and what the sink has read; a few are transaction marks.",
    ["sink", "topic"],
)
REWINDS = Counter("freshet_sink_rewinds", "How often the online store had lost rows and the sink went back.", ["topic"])
OUTAGES = Counter("freshet_sink_store_outages", "How often Redis did not answer.")


def serve(bind: str, port: int) -> None:
    """Answer on `port`, in a thread of its own. Raises `SettingsError` when it is taken."""
    try:
        start_http_server(port, addr=bind)
    except OSError as error:
        raise SettingsError(
            f"the port of the sink's metrics, {port}, cannot be opened ({error.strerror}); "
            "set FRESHET_SINK_METRICS_PORT"
        ) from error

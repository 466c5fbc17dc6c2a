"""What serving measures of itself: Prometheus metrics of every answer, and quantiles of the newest for the console."""

from collections import deque
from collections.abc import Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

RECENT = 2_000
"""Answers that the console's quantiles are over."""
BUCKETS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.04, 0.08, 0.16, 0.5, 2.0)
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)

SECONDS = Histogram("freshet_serve_stage_seconds", "Time of each stage of an answer.", ["stage"], buckets=BUCKETS)
FALLBACKS = Counter("freshet_serve_fallbacks", "Answers that had to do without something.", ["name"])
ANSWERS = Counter("freshet_serve_answers", "Answers by arm.", ["arm"])
TAIL = Histogram(
    "freshet_serve_tail_exposure",
    "Share of an answer's discounted exposure that goes to the long tail.",
    ["arm"],
    buckets=SHARES,
)
ITEM_TILE = Gauge(
    "freshet_serve_item_tile_seconds", "End of the tile that item values are read at.", multiprocess_mode="max"
)
BUNDLE = Gauge(
    "freshet_serve_bundle_version", "Version of the bundle that serves; 0 for none.", multiprocess_mode="max"
)


class Meters:
    """Counts the answers of one process."""

    def __init__(self) -> None:
        self._took_ms: deque[float] = deque(maxlen=RECENT)
        self.answered = 0

    def answer(
        self, stages: Mapping[str, float], fallback: Sequence[str], popular: bool, tail_exposure: float | None
    ) -> None:
        """Count one answer. `stages` are in milliseconds, with their `total`; `tail_exposure`: None of an empty one."""
        for stage, ms in stages.items():
            SECONDS.labels(stage).observe(ms / 1_000)
        for name in fallback:
            FALLBACKS.labels(name).inc()
        arm = "popular" if popular else "champion"
        ANSWERS.labels(arm).inc()
        if tail_exposure is not None:
            TAIL.labels(arm).observe(tail_exposure)
        self._took_ms.append(stages["total"])
        self.answered += 1

    def recent_ms(self) -> dict[str, float | None]:
        """p50 and p99 of the newest answers' totals, nearest rank, in milliseconds; None before the first."""
        took = sorted(self._took_ms)
        ranks = {name: min(len(took) - 1, int(q * len(took))) for name, q in (("p50", 0.5), ("p99", 0.99))}
        return {name: round(took[rank], 2) if took else None for name, rank in ranks.items()}

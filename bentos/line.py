"""The state of the line as the console shows it: rates and quantiles since the last look, from all parts' metrics."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from bentos.answering import Answering

TIMEOUT_S = 1.0
WINDOW_S = 10.0
"""Freshness is of the rows of so many seconds: of a single one it would jump about."""
LEAST_S = 0.8
"""Two looks closer than this get the same answer: pages must not add to the load that they show."""

Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""Metric name -> (labels, value) of each sample."""


@dataclass
class Line:
    """Looks at worker, sinks and this process."""

    answering: "Answering"
    _at: float = 0.0
    _applied: float | None = None
    _answered: int = 0
    _past: deque[tuple[float, Mapping[float, float]]] = field(default_factory=deque)
    _last: dict[str, Any] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> dict[str, Any]:
        """Events a second, lag in records, freshness and latency in milliseconds; None where nobody answers."""
        async with self._lock:
            if monotonic() - self._at >= LEAST_S:
                await self._refresh()
            return self._last

    async def _refresh(self) -> None:
        settings, answering = self.answering.settings, self.answering
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            worker, sink = await asyncio.gather(
                _scrape(client, settings.worker_metrics_host, settings.worker_metrics_port),
                _scrape(client, settings.sink_metrics_host, settings.sink_metrics_port),
            )
        at = monotonic()
        passed, first = at - self._at, self._at == 0.0
        applied = None if worker is None else _total(worker, "freshet_events_total", source="events", outcome="applied")
        rate = None if applied is None or self._applied is None else max(0.0, applied - self._applied) / passed
        freshness = None if sink is None else self._fresh(sink, at)
        bundle = answering.champion.bundle
        self._last = {
            "events_per_s": None if rate is None else round(rate, 1),
            "applied": applied,
            "duplicates": None if worker is None else _total(worker, "freshet_events_total", outcome="duplicate"),
            "rejected": None if worker is None else _total(worker, "freshet_events_total", outcome="rejected"),
            "lag": None if worker is None else _total(worker, "freshet_lag_records", source="events"),
            "users": None if worker is None else _total(worker, "freshet_states", source="events"),
            "items": len(answering.items.matrix),
            "freshness_ms": freshness,
            "recommend_ms": answering.meters.recent_ms(),
            "answers_per_s": None if first else round((answering.meters.answered - self._answered) / passed, 1),
            "bundle": None if bundle is None else bundle.version,
            "metrics": {} if bundle is None else bundle.manifest.get("metrics", {}),
            "tile": answering.items.matrix.tile,
        }
        self._at, self._applied, self._answered = at, applied, answering.meters.answered

    def _fresh(self, sink: Samples, at: float) -> dict[str, float | None]:
        """p50 and p99 of the rows written in the last seconds, interpolated within the histogram's buckets."""
        seen = [
            (float(labels["le"]), value)
            for labels, value in sink.get("freshet_online_freshness_seconds_bucket", ())
            if labels.get("view") == "user_state"
        ]
        self._past.append((at, dict(seen)))
        while len(self._past) > 1 and self._past[1][0] < at - WINDOW_S:
            self._past.popleft()
        before = self._past[0][1]
        new = sorted((le, value - before.get(le, 0.0)) for le, value in seen)
        return {name: _quantile(new, q) for name, q in (("p50", 0.5), ("p99", 0.99))}


def _quantile(buckets: Sequence[tuple[float, float]], q: float) -> float | None:
    """In milliseconds, as Prometheus' histogram_quantile has it; None where nothing was counted."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank, low, below = q * buckets[-1][1], 0.0, 0.0
    for le, count in buckets:
        if count >= rank and le != inf:
            return (low + (le - low) * (rank - below) / max(count - below, 1.0)) * 1_000
        low, below = (low, below) if le == inf else (le, count)
    return low * 1_000


async def _scrape(client: httpx.AsyncClient, host: str, port: int) -> Samples | None:
    try:
        answer = await client.get(f"http://{host}:{port}/metrics")
    except httpx.HTTPError:
        return None
    out: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            out.setdefault(sample.name, []).append((sample.labels, sample.value))
    return out


def _total(samples: Samples, name: str, **labels: str) -> float:
    return sum(v for of, v in samples.get(name, ()) if all(of.get(k) == x for k, x in labels.items()))

"""`freshet drift`: is what is served now still what the champion was fitted and evaluated on?

Compares the answers of a recent window with the reference in the bundle: an Evidently report of all columns for
people, and a verdict over those that can be compared fairly (`monitoring.served`) as JSON and for Prometheus.

A column's score is the normed Wasserstein distance: how far, on average, a value has moved, in standard deviations of
the reference. It drifts when that is at least `LEAST` (smaller moves do not matter) and beyond what chance gives: the
`1 - ALPHA / columns` quantile of the same distance for samples of the reference of the same size. So all columns
together give a false alarm by chance in at most one run in a hundred, before the margin of `LEAST`.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import wasserstein_distance

from freshet.settings import Settings
from monitoring import served
from streams.events import Micros

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, int, int | None], None]
"""(label, done, total)"""
LEAST = 0.5
ALPHA = 0.01
DRAWS = 200
CHANCE_ROWS = 4_000
"""Values of the reference that chance is reckoned from: sorting more of them 200 times costs seconds a column."""
ROWS_LEAST = 50
"""A column with fewer values on either side is not judged."""
ALARM_AT = 1
"""Columns that must drift for an alarm; many columns are already reckoned with in each one's threshold."""
FORMAT = 1


class DriftError(RuntimeError):
    """Nothing can be compared. The text says what is missing, and what to do."""


@dataclass(frozen=True)
class DriftColumn:
    """One judged column: its distance, from where on it drifts, and how many values each side had."""

    name: str
    score: float
    threshold: float
    drifted: bool
    reference_rows: int
    served_rows: int


@dataclass(frozen=True)
class DriftVerdict:
    """`at`, `since`: end and beginning of the window, epoch microseconds. `skipped`: what is not judged, and why."""

    at: Micros
    since: Micros
    bundle: str
    answers: int
    users: int
    drifted: bool
    drifted_columns: int
    alarm_at: int
    columns: list[DriftColumn]
    skipped: dict[str, str]
    html: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A stable form: the fields, and the number of the format."""
        return {"format": FORMAT} | asdict(self)


def run(
    settings: Settings,
    *,
    window_s: float = 86_400.0,
    until: Micros | None = None,
    html: Path | None = None,
    progress: Progress | None = None,
) -> DriftVerdict:
    """Judge the answers of the last `window_s` seconds before `until` (now), and write all three reports.

    Raises `DriftError` where there is no champion, no reference or no answer of it.
    """
    import asyncio

    from streams.sinks.archive import archive_until_now

    begun, tell = time.monotonic(), progress or (lambda label, done, total: None)
    at = until or time.time_ns() // 1_000
    since = at - int(window_s * 1e6)
    tell("drift: reading answers", 0, 3)
    version, reference = _reference(settings)
    asyncio.run(archive_until_now(settings))
    now = served.read(settings, version, since, at)
    if now.frame.empty:
        raise DriftError(
            f"bundle {version} has answered nothing in the last {window_s / 3600:g} hours: "
            "ask for recommendations, or look further back with --window"
        )
    tell("drift: comparing", 1, 3)
    columns = judge(served.comparable(reference), served.comparable(now.frame))
    if not columns:
        raise DriftError(f"{now.users} users have asked in the window; no column has {ROWS_LEAST} values to compare")
    settings.reports_dir.mkdir(parents=True, exist_ok=True)
    html = html or settings.reports_dir / "drift.html"
    tell("drift: writing the report", 2, 3)
    write_html(reference, now.frame, html)
    drifted = sum(c.drifted for c in columns)
    verdict = DriftVerdict(
        at, since, version, now.answers, now.users, drifted >= ALARM_AT, drifted, ALARM_AT, columns, served.SKIPPED,
        str(html), time.monotonic() - begun,
    )  # fmt: skip
    _replace(settings.reports_dir / "drift.json", json.dumps(verdict.to_json(), indent=1))
    _replace(settings.reports_dir / "drift.prom", exposition(verdict))
    tell("drift: done", 3, 3)
    return verdict


def _reference(settings: Settings) -> tuple[str, "pd.DataFrame"]:
    from bentos import bundle, registry

    version = registry.champion(settings)
    if version is None:
        raise DriftError("there is no champion to compare with: run `freshet train` first")
    folder = registry.folder(settings, version)
    bundle.check(folder, settings.signing_key())
    if not (folder / bundle.REFERENCE).exists():
        raise DriftError(f"bundle {version} has no {bundle.REFERENCE}: train again with the prequential protocol")
    return version, pq.read_table(folder / bundle.REFERENCE).to_pandas()


def judge(reference: Mapping[str, "pd.Series[float]"], now: Mapping[str, "pd.Series[float]"]) -> list[DriftColumn]:
    """Score every column that has enough values on both sides and varies in the reference; the largest first."""
    columns = {
        name: (column.to_numpy(dtype=float), now[name].to_numpy(dtype=float))
        for name, column in reference.items()
        if min(len(column), len(now[name])) >= ROWS_LEAST and float(column.std()) > 0
    }
    judged = []
    for name, (ref, cur) in columns.items():
        spread = float(ref.std())
        score = float(wasserstein_distance(ref, cur)) / spread
        threshold = max(LEAST, chance(ref, len(cur), ALPHA / len(columns)) / spread)
        judged.append(DriftColumn(name, score, threshold, score >= threshold, len(ref), len(cur)))
    return sorted(judged, key=lambda c: -c.score)


def chance(reference: "np.ndarray[Any, np.dtype[np.float64]]", n: int, alpha: float) -> float:
    """The distance that a sample of n values of the reference itself exceeds with probability alpha.

    From `DRAWS` samples; beyond their reach by the tail of a normal distribution around their mean.
    """
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    if len(reference) > CHANCE_ROWS:
        reference = rng.choice(reference, CHANCE_ROWS, replace=False)
    n = min(n, CHANCE_ROWS)
    drawn = [wasserstein_distance(rng.choice(reference, n), reference) for _ in range(DRAWS)]
    return float(np.mean(drawn) + norm.isf(alpha) * np.std(drawn))


def write_html(reference: "pd.DataFrame", now: "pd.DataFrame", path: Path) -> None:
    """Evidently's report of all columns as they are, with the same distance."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own and its libraries'
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        names = [name for name in reference.columns if name in now.columns]
        definition = DataDefinition(numerical_columns=names)
        some = min(served.ROWS_MOST, len(reference))
        datasets = [
            Dataset.from_pandas(frame[names], data_definition=definition)
            for frame in (now, reference.sample(some, random_state=0))
        ]
        preset = DataDriftPreset(num_method="wasserstein", num_threshold=LEAST)
        snapshot = Report([preset]).run(current_data=datasets[0], reference_data=datasets[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        snapshot.save_html(str(path))


def exposition(verdict: DriftVerdict) -> str:
    """The verdict in Prometheus' text format, for a textfile collector or `monitoring.exporter`."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    made: dict[str, float] = {
        "freshet_drift_alarm": float(verdict.drifted),
        "freshet_drift_columns": verdict.drifted_columns,
        "freshet_drift_answers": verdict.answers,
        "freshet_drift_checked_timestamp_seconds": verdict.at / 1e6,
    }
    for name, value in made.items():
        Gauge(name, METRICS[name], registry=registry).set(value)
    score = Gauge("freshet_drift_score", METRICS["freshet_drift_score"], ["column"], registry=registry)
    threshold = Gauge("freshet_drift_threshold", METRICS["freshet_drift_threshold"], ["column"], registry=registry)
    for column in verdict.columns:
        score.labels(column.name).set(column.score)
        threshold.labels(column.name).set(column.threshold)
    return generate_latest(registry).decode()


METRICS = {
    "freshet_drift_alarm": "1 when the last check found drift.",
    "freshet_drift_columns": "Columns that drifted in the last check.",
    "freshet_drift_answers": "Answers in the window of the last check.",
    "freshet_drift_checked_timestamp_seconds": "When the last check was made.",
    "freshet_drift_score": "Distance of a column from the reference, in its standard deviations.",
    "freshet_drift_threshold": "From which score on a column drifts.",
}


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)

"""Served answers as a table for the drift report, and the columns on which two tables can be compared fairly.

The reference holds what the cascade would have served while it was evaluated, before likes of the past; answers are
asked for by whoever comes now. So how much happens, and how long after their last event people ask, differs without
any drift. `comparable` leaves only what should stay as it is; `SKIPPED` says what it leaves out, and why.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from feature_repo.features import item, user
from freshet.settings import Settings
from streams.aggregates import Count, Mean, Sum, on, span_of
from streams.events import Micros
from streams.sinks import files
from streams.topics import RESPONSES

if TYPE_CHECKING:
    import pandas as pd

ROWS_MOST = 20_000
LATE: Micros = 3_600_000_000
"""An answer is in Kafka within seconds; clocks of two machines may lie so far apart at most."""
SCORE = "score"
SHOWN = on("impression")
LONG = span_of("7d")
"""Windows shorter than this follow the hour of the day and the pace of a visit."""
SKIPPED = {
    "windows below 7 days": "they follow the hour of the day and where in a visit the question is asked",
    "windows `ever`": "they grow with time by construction; the windows of 7 and 30 days say the same of the present",
    "Since (age, last seen, last liked)": "ages grow with time, and people ask at any moment, not just before a like",
    "Distinct": "it follows from how much happens",
    "impressions": "what is shown is our own doing: each new model changes it",
    "score": "it rises with what is known of a user, so it follows who asks",
}
"""What is not judged -> why. All of it is in the HTML report as it is."""


@dataclass(frozen=True)
class Served:
    """One row per item served, columns as in the reference, with `user_id` and `item_id`; newest answers first."""

    frame: "pd.DataFrame"
    answers: int
    users: int


class _Item(msgspec.Struct):
    item_id: str
    score: float


class _Answer(msgspec.Struct):
    user_id: str
    at: int
    bundle: str | None
    arm: str
    fallback: list[str]
    items: list[_Item]
    user_values: dict[str, Any]
    item_values: dict[str, dict[str, float]]


_decode = msgspec.json.Decoder(_Answer).decode


def read(settings: Settings, bundle: str, since: Micros, until: Micros, most: int = ROWS_MOST) -> Served:
    """What the bundle's cascade has answered in [since, until), evenly sampled down to about `most` rows.

    Answers of other arms, and those that had to do without something, are another population and left out.
    """
    import pandas as pd

    chosen: list[_Answer] = []
    step, seen, rows = 1, 0, 0
    for file in sorted((settings.archive_dir / RESPONSES).glob("p=*/*.parquet")):
        if files.newest(file) < since - LATE:
            continue
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000, columns=["value"]):
            for value in batch.column(0).to_pylist():
                answer = _decode(value)
                fits = answer.bundle == bundle and answer.arm != "popular" and not answer.fallback
                if not fits or not since <= answer.at < until:
                    continue
                seen += 1
                if seen % step == 0:
                    chosen.append(answer)
                    rows += len(answer.items)
                if rows > most:  # keep every second of them from now on
                    step, chosen = step * 2, chosen[1::2]
                    rows = sum(len(a.items) for a in chosen)
    chosen.sort(key=lambda a: -a.at)
    frame = pd.DataFrame([row for answer in chosen for row in _rows(answer)])
    return Served(frame, seen, len({a.user_id for a in chosen}))


def _rows(answer: _Answer) -> list[dict[str, Any]]:
    of_user = {f"user__{n}": float(v) for n, v in answer.user_values.items() if isinstance(v, int | float)}
    return [
        {"user_id": answer.user_id, "item_id": each.item_id}
        | of_user
        | {f"item__{n}": float(v) for n, v in answer.item_values[each.item_id].items()}
        | {SCORE: each.score}
        for each in answer.items
    ]


def comparable(frame: "pd.DataFrame") -> dict[str, "pd.Series[float]"]:
    """The judged columns. Each state counts once: of the served, one row a user and one an item.

    Means as they are, where there is one; sums as value per event; counts relative to their mean over the table, so
    that more traffic is no drift (`freshet_events_total` shows that), but another spread of it is.
    """
    out: dict[str, pd.Series[float]] = {}
    for profile in (user, item):
        names = [name for name in frame if name.startswith(f"{profile.name}__")]
        once = frame.drop_duplicates(profile.key) if profile.key in frame else frame.drop_duplicates(names)
        counts = {
            (f.of, w): f"{profile.name}__{f.name}_{w}"
            for f in profile.features
            if isinstance(f, Count)
            for w in f.windows
        }
        for f in profile.features:
            for window in getattr(f, "windows", ()):
                name = f"{profile.name}__{f.name}_{window}"
                if window == "ever" or span_of(window) < LONG:
                    continue
                if isinstance(f, Mean):
                    out[name] = once[name][once[name] != f.default]
                elif isinstance(f, Sum) and (f.of, window) in counts:
                    n = once[counts[f.of, window]]
                    out[f"{name} an event"] = np.log1p((once[name] / n)[n > 0].clip(lower=0))
                elif isinstance(f, Count) and f.of != SHOWN:
                    out[f"{name} relative"] = np.log1p(3 * once[name] / max(once[name].mean(), 1e-9))
    return {name: column.reset_index(drop=True) for name, column in out.items()}

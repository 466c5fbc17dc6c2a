"""The oracle: every feature recomputed in SQL over the raw events, by naive window arithmetic, without any state.

Shares no code with `streams` or `feature_repo`; what a feature is called and which parameters it has comes in as data
(`Declared`), what they mean is written here a second time. Which events count is left to `monitoring.counting`,
comparing to `monitoring.verify`.

Beside exact answers stand two that depend on an order by their nature: the keys of a decayed weight beyond its bound
are dropped as events come, so such a user's events are walked one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import xxhash

from monitoring.counting import Applied

MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
TILE_US = 5 * MINUTE_US
CLOSING_US = 10_000_000
"""A tile is closed so long after its end; what arrives later belongs to the next."""
UNIT = 1_000_000
TINY = 2.0**-60
"""A decayed weight below this much of an event is forgotten."""
FOREVER = 1 << 60


@dataclass(frozen=True)
class Declared:
    """One declared feature, as data. `of`: pairs (type, least value or None); None for all events."""

    kind: str
    name: str
    of: tuple[tuple[str, float | None], ...] | None
    windows: tuple[str, ...] = ()
    by: str = ""
    n: int = 0
    k: int = 0
    keys: int = 0
    half_life_us: int = 0
    first: bool = False
    cap_us: int = 0
    default: float = 0.0


@dataclass(frozen=True)
class Ask:
    """Read `key` at the instant `at` from its events before `before`, known before `known` (all in microseconds)."""

    key: str
    at: int
    before: int = FOREVER
    known: int = FOREVER


class UnknownKind(ValueError):
    """A kind of feature that the oracle has no rule for."""


def _span(window: str) -> int:
    return int(window[:-1]) * {"s": UNIT, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}[window[-1]]


def first_instant(window: str) -> str:
    """SQL: where a window read at `instant` begins; `instant - window` cut down to the window's tile."""
    if window == "ever":
        return "-1"
    span = _span(window)
    tile = TILE_US if span <= 12 * HOUR_US else HOUR_US if span <= 12 * DAY_US else DAY_US
    return f"(instant - {span} - (((instant - {span}) % {tile}) + {tile}) % {tile})"


def _selected(of: tuple[tuple[str, float | None], ...] | None) -> str:
    if of is None:
        return "true"
    terms = [f"(type = '{t}'" + (f" AND value >= {least!r})" if least is not None else ")") for t, least in of]
    return "(" + " OR ".join(terms) + ")"


class Oracle:
    """All applied events of a line in DuckDB."""

    def __init__(self, applied: Sequence[Applied]) -> None:
        self.db = duckdb.connect(config={"memory_limit": "2GB"})
        self.db.execute("SET enable_progress_bar = false")  # it would go to standard output, into a report
        types = [
            pa.int32(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64(), pa.float64(),
            pa.int64(), pa.list_(pa.string()),
        ]  # fmt: skip
        columns = zip(*applied, strict=True) if applied else ([] for _ in types)
        table = pa.table(
            [pa.array(list(c), t) for c, t in zip(columns, types, strict=True)], names=list(Applied._fields)
        )
        self.db.register("incoming", table)
        self.db.execute("CREATE TABLE event AS SELECT * FROM incoming")
        self.db.unregister("incoming")

    def newest(self, key: str) -> dict[str, int]:
        """The newest event time of each user (`key="user_id"`) or item."""
        return dict(self.db.execute(f"SELECT {key}, max(t) FROM event GROUP BY 1").fetchall())

    def tiles(self, closed_by: int) -> set[tuple[str, int]]:
        """(item, end of tile) of every closed tile in which an item changed, by what had arrived when it closed."""
        found = self.db.execute(
            f"""SELECT DISTINCT item_id, {_COUNTS_BY} AS tile FROM event WHERE tile + {CLOSING_US} <= ?""", [closed_by]
        )
        return set(found.fetchall())

    def applied(self) -> set[tuple[str, int]]:
        """(user, offset) of every applied event."""
        return set(self.db.execute('SELECT user_id, "offset" FROM event').fetchall())

    def values(self, key: str, features: Iterable[Declared], asks: Sequence[Ask]) -> list[dict[str, Any]]:
        """Every column of every feature, for each ask in its order; columns without events are left out."""
        table = pa.table(
            {
                "n": pa.array(range(len(asks)), pa.int64()),
                "k": pa.array([a.key for a in asks], pa.string()),
                "instant": pa.array([a.at for a in asks], pa.int64()),
                "before": pa.array([a.before for a in asks], pa.int64()),
                "known": pa.array([a.known for a in asks], pa.int64()),
            }
        )
        self.db.register("asks", table)
        self.db.execute(
            f"""CREATE OR REPLACE TEMP VIEW seen AS
            SELECT n, instant, event.* FROM asks JOIN event ON event.{key} = asks.k
            WHERE t < before AND {_COUNTS_BY} <= known"""
        )
        out: list[dict[str, Any]] = [{} for _ in asks]
        for feature in features:
            rule = getattr(self, f"_{feature.kind.lower()}", None)
            if rule is None:
                raise UnknownKind(f"feature {feature.name!r}: the oracle has no rule for {feature.kind}; write one")
            rule(feature, out, asks)
        self.db.unregister("asks")
        return out

    def _rows(self, feature: Declared, select: str, where: str = "true") -> list[tuple[Any, ...]]:
        return self.db.execute(
            f"SELECT n, {select} FROM seen WHERE {_selected(feature.of)} AND {where} GROUP BY n"
        ).fetchall()

    def _count(self, feature: Declared, out: list[dict[str, Any]], _: Sequence[Ask]) -> None:
        parts = [f"count(*) FILTER (t >= {first_instant(w)})" for w in feature.windows]
        for n, *counts in self._rows(feature, ", ".join(parts)):
            out[n].update({f"{feature.name}_{w}": c for w, c in zip(feature.windows, counts, strict=True)})

    def _sum(self, feature: Declared, out: list[dict[str, Any]], _: Sequence[Ask]) -> None:
        for n, sums, _counts in self._sums(feature):
            out[n].update({f"{feature.name}_{w}": s / UNIT for w, s in zip(feature.windows, sums, strict=True)})

    def _mean(self, feature: Declared, out: list[dict[str, Any]], _: Sequence[Ask]) -> None:
        for n, sums, counts in self._sums(feature):
            for window, total, count in zip(feature.windows, sums, counts, strict=True):
                out[n][f"{feature.name}_{window}"] = total / UNIT / count if count else feature.default

    def _sums(self, feature: Declared) -> Iterable[tuple[int, list[int], list[int]]]:
        inside = [f"FILTER (t >= {first_instant(w)})" for w in feature.windows]
        select = [f"coalesce(sum(amount) {i}, 0)" for i in inside] + [f"count(amount) {i}" for i in inside]
        size = len(inside)
        for n, *found in self._rows(feature, ", ".join(select), "amount IS NOT NULL"):
            yield n, [int(total) for total in found[:size]], found[size:]

    def _distinct(self, feature: Declared, out: list[dict[str, Any]], _: Sequence[Ask]) -> None:
        texts = f"unnest({feature.by})" if feature.by == "categories" else feature.by
        self._hash(texts)
        for window in feature.windows:
            found = self.db.execute(
                f"""SELECT n, list_sort(list(DISTINCT hashed)) FROM (
                    SELECT n, {texts} AS text FROM seen WHERE {_selected(feature.of)} AND t >= {first_instant(window)}
                ) JOIN hashes USING (text) GROUP BY n"""
            )
            for n, hashes in found.fetchall():
                k = feature.k  # below k values exact, else by the k-th smallest of 2^64
                size = len(hashes) if len(hashes) < k else round((k - 1) * 2.0**64 / (hashes[k - 1] + 1))
                out[n][f"{feature.name}_{window}"] = size

    def _hash(self, texts: str) -> None:
        found = [text for (text,) in self.db.execute(f"SELECT DISTINCT {texts} FROM event").fetchall()]
        hashed = [xxhash.xxh3_64_intdigest(text.encode()) for text in found]
        table = pa.table({"text": pa.array(found, pa.string()), "hashed": pa.array(hashed, pa.uint64())})
        self.db.register("incoming", table)
        self.db.execute("CREATE OR REPLACE TEMP TABLE hashes AS SELECT * FROM incoming")
        self.db.unregister("incoming")

    def _recent(self, feature: Declared, out: list[dict[str, Any]], asks: Sequence[Ask]) -> None:
        newest = f"list({{t: t, text: {feature.by}}} ORDER BY t DESC, {feature.by} DESC)[:{feature.n}]"
        for n, entries in self._rows(feature, newest, f"{feature.by} IS NOT NULL"):
            out[n][feature.name] = [e["text"] for e in entries]
            out[n][f"{feature.name}_age_s"] = [(asks[n].at - e["t"]) / UNIT for e in entries]

    def _since(self, feature: Declared, out: list[dict[str, Any]], asks: Sequence[Ask]) -> None:
        for n, t in self._rows(feature, "min(t)" if feature.first else "max(t)"):
            out[n][f"{feature.name}_s"] = min(asks[n].at - t, feature.cap_us) / UNIT

    def _decayed(self, feature: Declared, out: list[dict[str, Any]], asks: Sequence[Ask]) -> None:
        texts = f"unnest({feature.by})" if feature.by == "categories" else feature.by
        h = feature.half_life_us
        found = self.db.execute(
            f"""WITH entry AS (SELECT n, instant, t, {texts} AS text FROM seen WHERE {_selected(feature.of)}),
            total AS (SELECT n, text, sum(pow(2.0, -((instant - t) / {h}))) AS w, any_value(landmark) AS landmark FROM (
                SELECT *, max(t // {h}) OVER (PARTITION BY n) AS landmark FROM entry) GROUP BY n, text)
            SELECT n, list({{text: text, w: w, landmark: landmark}} ORDER BY text) FROM total GROUP BY n"""
        )
        for n, entries in found.fetchall():
            at = asks[n].at
            if len(entries) > feature.keys:
                out[n].update(self._walked(feature, n, at))
                continue
            kept = [e for e in entries if e["w"] * 2.0 ** min((at - e["landmark"] * h) / h, 900) > TINY]
            out[n][feature.name] = [e["text"] for e in kept]
            out[n][f"{feature.name}_weight"] = [e["w"] for e in kept]

    def _walked(self, feature: Declared, n: int, at: int) -> dict[str, Any]:
        """More keys than are kept: the lightest goes as soon as there is one too many, equal ones by name."""
        texts = "categories" if feature.by == "categories" else f"[{feature.by}]"
        weights: dict[str, float] = {}
        landmark, h = 0, feature.half_life_us
        for t, keys in self.db.execute(
            f'SELECT t, {texts} FROM seen WHERE n = ? AND {_selected(feature.of)} ORDER BY "offset"', [n]
        ).fetchall():
            if t // h > landmark:
                weights = {k: w for k, v in weights.items() if (w := v * 2.0 ** max(landmark - t // h, -900)) > TINY}
                landmark = t // h
            for key in keys:
                weights[key] = weights.get(key, 0.0) + 2.0 ** (t / h - landmark)
            while len(weights) > feature.keys:
                weights.pop(min(weights, key=lambda k: (weights[k], k)))
        names = sorted(weights)
        return {
            feature.name: names,
            f"{feature.name}_weight": [weights[k] * 2.0 ** max(landmark - at / h, -900) for k in names],
        }


_COUNTS_BY = f"greatest(t // {TILE_US}, (arrival - {CLOSING_US}) // {TILE_US}) * {TILE_US} + {TILE_US}"
"""SQL: the end of the first tile whose closed state holds an event: it happened and had arrived."""

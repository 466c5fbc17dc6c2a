"""`freshet verify --served`: the values in logged answers against those that training pulls through Feast.

Joined by version (users) and by tile (items) nothing may differ: both sides then name the same state, and reading it is
one function. Joined by time, an answer may be older than the event log, because an event was still on its way; how
many are and by how long is measured. The stores themselves are compared in `monitoring.verify`.
"""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import offline
from feature_repo.features import item, user
from feature_repo.store import open_store
from freshet.settings import Settings
from monitoring import quiet
from monitoring.oracle import CLOSING_US
from monitoring.quiet import Progress
from monitoring.report import ByTime, Check, VerifyReport
from streams.topics import RESPONSES

if TYPE_CHECKING:
    import pandas as pd

MOST = 50_000
"""The newest answers that are compared."""
AT_ONCE = 20_000
UNREAD = "features_unavailable"
"""The fallback of an answer that could not read its user, as `bentos.answering` names it: nothing was on its way."""
NEVER = -1
"""The version of a user who was never seen."""


class SkewError(RuntimeError):
    """Nothing can be said of the answers. The text says what is missing."""


class Answer(msgspec.Struct):
    """What is compared of a logged answer; the values stay JSON until then."""

    user_id: str
    at: int
    tile: int
    user_version: int
    user_values: msgspec.Raw
    item_values: dict[str, msgspec.Raw]
    fallback: list[str] = []


_decode = msgspec.json.Decoder(Answer).decode


def run(
    settings: Settings,
    *,
    at_least: int = 1,
    most: int = MOST,
    fill: bool = True,
    progress: Progress | None = None,
    limit_s: float = 120.0,
) -> VerifyReport:
    """Compare the newest `most` answers. Raises `SkewError` when fewer than `at_least` are logged, and `NotQuiet`.

    `fill` runs the backfill first; without it the offline store must hold all that is archived.
    """
    from streams.backfill import backfill

    begun, tell = time.monotonic(), progress or (lambda label, done, total: None)
    quiet.wait(settings, limit_s, tell)
    if fill:
        backfill(settings, progress=tell)
    users, items = Check("users, joined by version"), Check("items, joined by tile")
    answers: list[Answer] = []
    served: dict[tuple[str, int], bytes] = {}
    for answer in logged(settings, most):
        for item_id, values in answer.item_values.items():
            items.compared += 1
            first = served.setdefault((item_id, answer.tile), bytes(values))
            if first != bytes(values):
                items.differ(
                    f"item {item_id!r} at tile {answer.tile}: two answers have {first!r} and {bytes(values)!r}"
                )
        answer.item_values = {}
        answers.append(answer)
    if len(answers) < at_least:
        raise SkewError(
            f"{len(answers):,} answers are in the archive, {at_least:,} are needed: "
            "ask for recommendations under load first"
        )
    store = _Feast(settings)
    for begin in range(0, len(answers), AT_ONCE):
        _users(store, settings, answers[begin : begin + AT_ONCE], users)
        tell("users of answers, through Feast", min(begin + AT_ONCE, len(answers)), len(answers))
    tiles = sorted(served)
    for begin in range(0, len(tiles), AT_ONCE):
        _items(store, tiles[begin : begin + AT_ONCE], served, items)
        tell("items of answers, through Feast", min(begin + AT_ONCE, len(tiles)), len(tiles))
    late = behind(store, settings, answers)
    return VerifyReport(
        time.time_ns() // 1_000,
        time.monotonic() - begun,
        len({a.user_id for a in answers}),
        len({item_id for item_id, _ in served}),
        [],
        [users, items],
        late,
    )


def logged(settings: Settings, most: int) -> Iterator[Answer]:
    """The newest answers of the archive, newest file first."""
    files = sorted((settings.archive_dir / RESPONSES).glob("p=*/*.parquet"), key=lambda f: f.stat().st_mtime)
    left = most
    for file in reversed(files):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000, columns=["value"]):
            for value in batch.column(0).to_pylist()[:left]:
                left -= 1
                yield _decode(value)
        if left <= 0:
            return


class _Feast:
    """Feast, as training asks it."""

    def __init__(self, settings: Settings) -> None:
        self._store = open_store(settings)

    def pull(self, frame: "pd.DataFrame", features: Sequence[str], known_only: bool) -> list[dict[str, Any]]:
        """Rows in the order of `frame`, whose column `n` numbers them. `known_only`: what had arrived by then."""
        joined = self._store.get_historical_features(
            entity_df=frame, features=list(features), full_feature_names=True, filter_by_created_timestamp=known_only
        ).to_df()
        rows: list[dict[str, Any]] = joined.sort_values("n").to_dict("records")
        if len(rows) != len(frame):
            raise SkewError(f"Feast gave {len(rows)} rows for {len(frame)} questions")
        return rows


def _frame(key: str, keys: Sequence[str], moments: Sequence[int], at: Sequence[int]) -> "pd.DataFrame":
    import pandas as pd

    times = pd.to_datetime(list(moments), unit="us", utc=True)
    return pd.DataFrame({key: list(keys), "event_timestamp": times, "at": list(at), "n": range(len(keys))})


def _differences(theirs: dict[str, Any], ours: bytes, profile: str) -> list[str]:
    """Columns of an answer, as logged, that Feast has otherwise."""
    out = []
    for name, value in msgspec.json.decode(ours).items():
        found = theirs[f"{profile}_values__{profile}__{name}"]
        found = list(found) if isinstance(value, list) else found
        if found != value:
            out.append(f"{name}: served {value!r}, training has {found!r}")
    return out


def _users(store: _Feast, settings: Settings, answers: Sequence[Answer], check: Check) -> None:
    """Each version's row has an event timestamp of its own, so asking Feast at that instant names the version."""
    moments = _moments(settings, answers)
    known: list[Answer] = []
    for answer in answers:
        check.compared += 1
        if answer.user_version == NEVER:
            default = {f"user_values__user__{c}": v for c, v in user.values(None, answer.at).items()}
            if wrong := _differences(default, bytes(answer.user_values), "user"):
                check.differ(f"new user {answer.user_id!r}: {'; '.join(wrong)}")
        elif (answer.user_id, answer.user_version) not in moments:
            check.differ(f"user {answer.user_id!r}: version {answer.user_version} was served and is in no offline row")
        else:
            known.append(answer)
    if not known:
        return
    when = [moments[a.user_id, a.user_version] for a in known]
    frame = _frame("user_id", [a.user_id for a in known], when, [a.at for a in known])
    names = [f"user_values:user__{c.name}" for c in user.columns]
    for answer, row in zip(known, store.pull(frame, names, known_only=False), strict=True):
        if wrong := _differences(row, bytes(answer.user_values), "user"):
            check.differ(f"user {answer.user_id!r} version {answer.user_version} at {answer.at}: {'; '.join(wrong)}")


def _moments(settings: Settings, answers: Sequence[Answer]) -> dict[tuple[str, int], int]:
    """(user, version) -> event timestamp of its offline row."""
    asked = pa.table(
        {
            "user_id": pa.array([a.user_id for a in answers], pa.string()),
            "version": pa.array([a.user_version for a in answers], pa.int64()),
        }
    )
    with duckdb.connect() as db:
        db.register("asked", asked)
        found = db.execute(
            f"""SELECT DISTINCT user_id, version, epoch_us(event_timestamp)
            FROM read_parquet('{offline.pattern(settings, user)}') JOIN asked USING (user_id, version)"""
        ).fetchall()
    return {(user_id, version): at for user_id, version, at in found}


def _items(store: _Feast, tiles: Sequence[tuple[str, int]], served: dict[tuple[str, int], bytes], check: Check) -> None:
    when = [tile + CLOSING_US for _, tile in tiles]
    frame = _frame("item_id", [item_id for item_id, _ in tiles], when, when)
    names = [f"item_values:item__{c.name}" for c in item.columns]
    for key, row in zip(tiles, store.pull(frame, names, known_only=False), strict=True):
        if wrong := _differences(row, served[key], "item"):
            check.differ(f"item {key[0]!r} at tile {key[1]}: {'; '.join(wrong)}")


def behind(store: _Feast, settings: Settings, answers: Sequence[Answer]) -> ByTime:
    """Which answers were older than what had arrived by their instant, and by how long.

    Those that could not read their user at all are counted apart: they fell back, and no event was on its way.
    """
    read = [a for a in answers if UNREAD not in a.fallback]
    unread, answers = len(answers) - len(read), read
    if not answers:
        return ByTime(0, 0, {"p50": 0.0, "p99": 0.0, "worst": 0.0}, unread)
    frame = _frame("user_id", [a.user_id for a in answers], [a.at for a in answers], [a.at for a in answers])
    rows = store.pull(frame, ["user_state:version"], known_only=True)
    missed = [a for a, row in zip(answers, rows, strict=True) if _version(row["user_state__version"]) > a.user_version]
    if not missed:
        return ByTime(len(answers), 0, {"p50": 0.0, "p99": 0.0, "worst": 0.0}, unread)
    asked = pa.table(
        {
            "user_id": pa.array([a.user_id for a in missed], pa.string()),
            "served": pa.array([a.user_version for a in missed], pa.int64()),
            "instant": pa.array([a.at for a in missed], pa.int64()),
        }
    )
    with duckdb.connect() as db:
        db.register("asked", asked)
        row = db.execute(
            f"""WITH lag AS (SELECT max(instant - epoch_us(created_timestamp)) / 1000 AS ms
                FROM asked JOIN read_parquet('{offline.pattern(settings, user)}') row USING (user_id)
                WHERE version > served AND epoch_us(created_timestamp) <= instant GROUP BY user_id, served, instant)
            SELECT quantile_cont(ms, 0.5), quantile_cont(ms, 0.99), max(ms) FROM lag"""
        ).fetchone()
    assert row is not None  # an aggregate without groups gives one row
    lag_ms = dict(zip(("p50", "p99", "worst"), map(float, row), strict=True))
    return ByTime(len(answers), len(missed), lag_ms, unread)


def _version(found: Any) -> int:
    """Feast gives None, or a float NaN, where there is no row."""
    return NEVER if found is None or found != found else int(found)

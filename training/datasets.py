"""What models learn from: what users liked, in order, and everything that was known just before each time.

User values come from the point-in-time join; item values from the offline item states, stepped tile by tile through
the same `ItemTable` that serving uses. `audit` holds both against Feast's own join of users and items. Splitting and
fitting are left to `training.pipeline`.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from bentos.inputs import ITEM_COLUMNS, Indices, ItemMatrix, ItemTable
from feature_repo import offline
from feature_repo.features import converted, liked
from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from freshet.settings import Settings
from streams.aggregates import EVER
from streams.catalogue import Item, read_catalogue
from streams.events import BadEvent, Micros, decode
from streams.tiled import CLOSING, t_item
from streams.topics import EVENTS
from training import point_in_time

if TYPE_CHECKING:
    from feast import FeatureStore

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MEMORY = "1GB"
"""What sorting item states by time may hold in memory."""
LEAST_LIKED = 1_000
"""Below this many liked interactions nothing that is fitted can be told from chance."""
BEFORE: Micros = 1
"""A question is asked this long before its event, so the event itself is not in its own features."""


class NoData(ValueError):
    """There is nothing to train on yet. The text says how to get something."""


class Skew(RuntimeError):
    """Training and Feast disagree on a value: nothing may be trained on either."""


@dataclass(frozen=True, eq=False)
class Log:
    """Every opinion, by time: the first time that a user liked or rated an item. Arrays of one length n.

    `users`, `items`: int64 indices into `user_ids`, `item_ids`; `at`: int64 microseconds, rising, when it happened;
    `known`: int64 microseconds, when it was first known that the user has an opinion of the item; `liked`: bool;
    `converted`: int64 microseconds, when that led to a conversion, `EVER` where it has not. Views and impressions are
    no opinion, and neither is the second purchase of an item.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    liked: npt.NDArray[np.bool_]
    converted: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)

    def matrix(self, stop: int) -> csr_matrix:
        """What was liked among the first `stop` interactions, 0/1 float32 [users, items]."""
        pick = np.flatnonzero(self.liked[:stop])
        ones = np.ones(len(pick), dtype=np.float32)
        matrix = csr_matrix(
            (ones, (self.users[pick], self.items[pick])), shape=(len(self.user_ids), len(self.item_ids))
        )
        matrix.data[:] = 1.0
        return matrix


def read(settings: Settings) -> tuple[Log, dict[str, Item]]:
    """The log, and the catalogue. Raises `NoData` when there is too little to learn."""
    catalogue = asyncio.run(read_catalogue(settings))
    log = read_log(settings, sorted(catalogue, key=_natural))
    liked = int(log.liked.sum())
    if liked < LEAST_LIKED:
        raise NoData(
            f"{liked} liked interactions are archived, at least {LEAST_LIKED} are needed: "
            "send more events, or try `freshet simulate` or `freshet replay movielens`"
        )
    return log, catalogue


def _natural(item_id: str) -> tuple[int, str]:
    """Numbers by size, other ids after them: the order of the catalogue, which breaks ties."""
    return (int(item_id), "") if item_id.isdigit() else (1 << 62, item_id)


def read_log(settings: Settings, catalogue: Sequence[str]) -> Log:
    """From the archive of `events`; the items of the catalogue come first among `item_ids`. Raises `NoData`."""
    folder = settings.archive_dir / EVENTS
    files = sorted(folder.glob("p=*/*.parquet"))
    if not files:
        raise NoData(f"no events are archived in {folder}: is the archive sink running, and has anything been sent?")
    rows: list[tuple[Micros, str, str, Micros, bool, bool]] = []
    for file in files:
        for value in pq.read_table(file, columns=["value"]).column("value").to_pylist():
            try:
                event = decode(value, settings.future_tolerance_s * 1_000_000)
            except BadEvent:
                continue  # the fold refused it too
            good, best = (of.selects(event.type, event.value) for of in (liked, converted))
            if good or event.type == "rate":
                known = max(event.arrival, event.event_time)  # a client's clock may go ahead
                rows.append((event.event_time, event.user_id, event.item_id, known, good, best))
    rows.sort()
    users: dict[str, int] = {}
    items: dict[str, int] = {item_id: n for n, item_id in enumerate(catalogue)}
    pairs: dict[tuple[int, int], list[int]] = {}
    for at, user_id, item_id, known, good, best in rows:
        pair = users.setdefault(user_id, len(users)), items.setdefault(item_id, len(items))
        if pair in pairs:
            pairs[pair][3] = min(pairs[pair][3], known)
            if best:
                pairs[pair][5] = min(pairs[pair][5], at)
        else:
            pairs[pair] = [*pair, at, known, good, at if best else EVER]
    table = np.array(list(pairs.values()), dtype=np.int64).reshape(-1, 6)
    who, what, at_, known_, good_, converted_ = np.ascontiguousarray(table.T)
    return Log(tuple(users), tuple(items), who, what, at_, known_, good_.astype(bool), converted_)


@dataclass(frozen=True, eq=False)
class Question:
    """What would this user like at this instant? `seen` are the items that the user had an opinion of by then.

    `positives` are the items liked next, `converted` those of them that it is known to have led to a conversion with.
    `user_values` and `items` are what was known at `at`; `unborn` int64 [<= n] are the rows of items that were not
    there yet, which no model may name.
    """

    user_id: str
    at: Micros
    user_values: Mapping[str, Any]
    items: ItemMatrix
    seen: frozenset[str]
    positives: tuple[str, ...]
    converted: tuple[str, ...] = ()
    unborn: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Asking:
    """One question to be built: `user` is an index of the log, `at` its instant, the others are item ids."""

    user: int
    at: Micros
    positives: tuple[str, ...]
    converted: tuple[str, ...] = ()


def asked_before(log: Log, picks: Sequence[int], until: Micros = 0) -> list[Asking]:
    """A question just before each of these (liked) interactions. Conversions are known of up to `until`."""
    out = []
    for n in sorted(picks):
        positives = (log.item_ids[int(log.items[n])],)
        converted = positives if log.converted[n] <= until else ()
        out.append(Asking(int(log.users[n]), int(log.at[n]) - BEFORE, positives, converted))
    return out


def births(log: Log, catalogue: Mapping[str, Item]) -> Indices:
    """When each item of the log came to be, int64 microseconds [items].

    0 where the catalogue does not say, and where an opinion was there first: then the item was, too.
    """
    items = [catalogue.get(item_id) for item_id in log.item_ids]
    said = np.array([0 if item is None else item.created_at or 0 for item in items], dtype=np.int64)
    first = np.full(len(said), EVER, dtype=np.int64)
    np.minimum.at(first, log.items, log.at)
    return np.where(said < first, said, 0)


def questions(
    settings: Settings,
    log: Log,
    asking: Sequence[Asking],
    catalogue: Mapping[str, Item],
) -> Iterator[Question]:
    """Build questions, in the order of their instants. Memory: one item matrix at a time."""
    asking = sorted(asking, key=lambda a: a.at)
    values = _user_values(settings, [(log.user_ids[a.user], a.at) for a in asking])
    table = ItemTable()
    for item_id in log.item_ids:
        table.describe(catalogue.get(item_id) or Item(item_id, ""))
    born = births(log, catalogue)
    by_birth = np.argsort(born)
    born = born[by_birth]
    states = _item_states(settings, t_item(asking[0].at), t_item(asking[-1].at)) if asking else iter(())
    ahead = next(states, None)
    seen: dict[int, set[str]] = {}
    arriving, n = np.argsort(log.known, kind="stable").tolist(), 0
    for ask, mine in zip(asking, values, strict=True):
        tile = t_item(ask.at)
        while ahead is not None and ahead[0] <= tile:
            table.put(ahead[1], ahead[2])
            ahead = next(states, None)
        while n < len(log) and log.known[arriving[n]] <= ask.at:
            opinion = arriving[n]
            seen.setdefault(int(log.users[opinion]), set()).add(log.item_ids[int(log.items[opinion])])
            n += 1
        yield Question(
            log.user_ids[ask.user],
            ask.at,
            mine,
            table.at(tile),
            frozenset(seen.get(ask.user, ())),
            ask.positives,
            ask.converted,
            by_birth[np.searchsorted(born, ask.at, side="right") :],
        )


def _moment(at: Micros) -> datetime:
    return EPOCH + timedelta(microseconds=at)


def _user_values(settings: Settings, asked: Sequence[tuple[str, Micros]]) -> list[dict[str, Any]]:
    """The values of users at instants."""
    states = point_in_time.states(settings, user_profile, [user_id for user_id, _ in asked], [at for _, at in asked])
    return [user_profile.values(state, at) for state, (_, at) in zip(states, asked, strict=True)]


def _item_states(settings: Settings, first: Micros, last: Micros) -> Iterator[tuple[Micros, str, bytes]]:
    """(tile end, item, state), by tile: every item's newest at tile `first`, then all that come up to tile `last`."""
    states = f"read_parquet('{offline.pattern(settings, item_profile)}')"
    newest = f"""
        WITH newest AS (
            SELECT item_id, max(event_timestamp) AS event_timestamp FROM {states}
            WHERE epoch_us(event_timestamp) <= $first GROUP BY item_id)
        SELECT epoch_us(event_timestamp), item_id, item_state FROM {states} JOIN newest USING (item_id, event_timestamp)
        ORDER BY 1, 2"""
    later = f"""
        SELECT epoch_us(event_timestamp), item_id, item_state FROM {states}
        WHERE epoch_us(event_timestamp) > $first AND epoch_us(event_timestamp) <= $last ORDER BY 1, 2"""
    with point_in_time.database(settings, MEMORY) as db:
        for query, bounds in ((newest, {"first": first}), (later, {"first": first, "last": last})):
            within = {name: tile + CLOSING for name, tile in bounds.items()}
            for batch in db.execute(query, within).to_arrow_reader(10_000):
                for known, item_id, state in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield known - CLOSING, item_id, state


def audit(store: "FeatureStore", some: Sequence[tuple[Question, str]]) -> int:
    """Compare (question, item) pairs with Feast's join of users and items through the service `ranker`.

    Every column must be equal. Returns how many values were compared; raises `Skew` on the first that differs.
    """
    if not some:
        return 0
    frame = pd.DataFrame(
        {
            "user_id": [q.user_id for q, _ in some],
            "item_id": [item_id for _, item_id in some],
            "event_timestamp": pd.to_datetime([q.at for q, _ in some], unit="us", utc=True),
            "at": [q.at for q, _ in some],
            "n": np.arange(len(some)),
        }
    )
    joined = store.get_historical_features(
        entity_df=frame, features=store.get_feature_service("ranker"), filter_by_created_timestamp=True
    ).to_df()
    compared = 0
    for row in joined.to_dict("records"):
        question, item_id = some[int(row["n"])]
        mine = question.items.values_of(question.items.index[item_id])
        for name, value in [
            *((f"user__{c}", v) for c, v in question.user_values.items()),
            *((f"item__{c}", mine[c]) for c in ITEM_COLUMNS),
        ]:
            theirs = list(row[name]) if isinstance(value, list) else row[name]
            if theirs != value:
                raise Skew(
                    f"{name} of user {question.user_id} and item {item_id} at {_moment(question.at)}: "
                    f"training has {value!r}, Feast {theirs!r}; run `freshet backfill` again, report this if it stays"
                )
            compared += 1
    return compared

"""`freshet verify`: every feature of every user and item, in every store, against an oracle over the raw events.

Waits until the line is quiet, archives what is in Kafka, runs the backfill, then compares the oracle's numbers with
`user-features` and `item-features`, those with Redis byte for byte, and the offline store with both. What an event
means is left to `monitoring.oracle`, which shares no code with the line; the skew check to `monitoring.skew`.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.features import item, user
from freshet.settings import Settings
from monitoring import quiet, raw
from monitoring.columns import compare, declared
from monitoring.counting import Tally, count
from monitoring.offline_check import archived_equal, items_equal, users_equal
from monitoring.online_check import redis_equal
from monitoring.oracle import TILE_US, Ask, Oracle
from monitoring.quiet import Progress
from monitoring.report import Check, Partition, VerifyReport
from streams.backfill import BackfillReport, backfill
from streams.profiles import Profile
from streams.topics import EVENTS, ITEM_FEATURES, USER_FEATURES

PATIENCE_S = 120.0


class VerifyError(RuntimeError):
    """Nothing can be said. The text says why, and what to do."""


def run(
    settings: Settings, *, served: bool = False, progress: Progress | None = None, limit_s: float = PATIENCE_S
) -> VerifyReport:
    """Compare all stores, or with `served` the logged answers. Raises `VerifyError`, `NotQuiet`, `ReadError`."""
    if served:
        from monitoring import skew

        return skew.run(settings, progress=progress, limit_s=limit_s)
    begun, tell = time.monotonic(), progress or (lambda label, done, total: None)
    quiet.wait(settings, limit_s, tell)
    backfilled = backfill(settings, progress=tell)
    evidence = gather(settings, tell)
    checks = compare_all(settings, evidence, backfilled, tell)
    partitions = [
        Partition(p, t.next_offset - t.start_offset, t.applied, t.late, t.duplicate, t.rejected)
        for p, t in evidence.tallies.items()
    ]
    seconds, users, items = time.monotonic() - begun, len(evidence.users.rows), len(evidence.items.rows)
    return VerifyReport(time.time_ns() // 1_000, seconds, users, items, partitions, checks)


@dataclass(frozen=True)
class Evidence:
    """What the comparisons rest on: the raw records by partition, the newest rows, and the oracle over what counts."""

    records: dict[int, list[raw.Record]]
    users: raw.Rows
    items: raw.Rows
    tallies: dict[int, Tally]
    oracle: Oracle


def gather(settings: Settings, tell: Progress, *, folded_only: bool = False) -> Evidence:
    """Read the topics and let the oracle judge the events, with `folded_only` those that the states say they hold.

    Raises `VerifyError`, `ReadError`.
    """
    records = _events(settings, tell)
    users, items = raw.rows(settings, USER_FEATURES), raw.rows(settings, ITEM_FEATURES)
    if folded_only:
        ends = {p: meta["next_offset"] for p, meta in users.meta.items()}
        records = {p: [record for record in found if record[0] < ends.get(p, 0)] for p, found in records.items()}
    tallies, applied = count(
        records, settings.dedup_window, settings.future_tolerance_s * 1_000_000, settings.partitions
    )
    return Evidence(records, users, items, tallies, Oracle(applied))


def compare_all(settings: Settings, evidence: Evidence, backfilled: BackfillReport, tell: Progress) -> list[Check]:
    """Hold every store against the evidence. Raises `VerifyError`."""
    users, items, oracle = evidence.users, evidence.items, evidence.oracle
    checks = [
        conservation(evidence.tallies, users.meta),
        handed_over(evidence.tallies, items.meta),
        archived_equal(settings, evidence.records),
        check_rows(user, users, oracle, tell),
        check_rows(item, items, oracle, tell),
        redis_equal(settings, user, users.rows, tell),
        redis_equal(settings, item, items.rows, tell),
        users_equal(settings, oracle, users.rows, backfilled.user_rows, tell),
        items_equal(settings, oracle, declared(item), backfilled.closed_by, tell),
    ]
    for p, (_, end) in raw.bounds(settings, EVENTS).items():
        if p in evidence.tallies and evidence.tallies[p].next_offset != end:
            raise VerifyError(
                "events came in meanwhile, so these comparisons mean nothing: stop the senders and verify again"
            )
    return checks


def _events(settings: Settings, progress: Progress) -> dict[int, list[raw.Record]]:
    """All records of `events`, uncommitted ones too: its producers use no transactions."""
    ends = raw.bounds(settings, EVENTS)
    expired = [p for p, (first, _) in ends.items() if first > 0]
    if expired:
        raise VerifyError(
            f"partition {expired[0]} of {settings.topic(EVENTS)} begins at offset {ends[expired[0]][0]}: what expired "
            "cannot be recomputed from the topic; verify before its retention is over, or lengthen that"
        )
    total = sum(end for _, end in ends.values())
    if not total:
        raise VerifyError("there are no events to verify: `freshet replay` or `freshet simulate` sends some")
    records: dict[int, list[raw.Record]] = {}
    for done, (partition, record) in enumerate(raw.read(settings, EVENTS, level="read_uncommitted"), 1):
        records.setdefault(partition, []).append(record)
        if done % 20_000 == 0 or done == total:
            progress("reading the raw events", done, total)
    return records


def conservation(tallies: Mapping[int, Tally], metas: Mapping[int, Mapping[str, Any]]) -> Check:
    """The engine's own counts are the oracle's, and none of the records is unaccounted for."""
    check = Check("counts of each partition (applied, late, duplicate, rejected)")
    for partition, tally in tallies.items():
        check.compared += 1
        meta = metas.get(partition, {})
        if meta != vars(tally):
            check.differ(f"partition {partition}: the engine says {meta}, the oracle {vars(tally)}")
        if tally.applied + tally.late + tally.duplicate + tally.rejected != tally.next_offset - tally.start_offset:
            check.differ(f"partition {partition}: outcomes do not add up: {vars(tally)}")
    return check


def handed_over(tallies: Mapping[int, Tally], metas: Mapping[int, Mapping[str, Any]]) -> Check:
    """Each partition of items got every applied event of its items, from each partition of events."""
    check = Check("events that came to each partition of items, by where from")
    for partition in map(str, tallies.keys() | metas.keys()):
        want = {str(p): tally.passed[partition] for p, tally in tallies.items() if partition in tally.passed}
        got = metas.get(int(partition), {}).get("passed", {})
        check.compared += len(want)
        if got != want:
            check.differ(f"partition {partition}: got {got}, the oracle says {want}")
    return check


def check_rows(profile: Profile, found: raw.Rows, oracle: Oracle, progress: Progress) -> Check:
    """Every key of a topic of states: each column at the key's own newest event and at everybody's."""
    topic = USER_FEATURES if profile is user else ITEM_FEATURES
    check = Check(f"{topic}: every column of every {profile.name}")
    newest = oracle.newest(profile.key)
    check.same_set(newest, found.rows, profile.name + "s")
    check.compared = 0
    for name in found.regressions:
        check.differ(f"{profile.name} {name!r}: its version went down, or it lies in two partitions")
    keys = sorted(newest.keys() & found.rows.keys())
    latest = max(newest.values(), default=0)
    asks = list(_asks(profile, newest, keys, latest))
    for begin in range(0, len(asks), 20_000):
        some = asks[begin : begin + 20_000]
        for ask, want in zip(some, oracle.values(profile.key, declared(profile), some), strict=True):
            compare(profile, check, ask.key, want, _read(profile, found.rows[ask.key], ask), ask.at)
        progress(f"comparing {topic}", begin + len(some), len(asks))
    return check


def _asks(profile: Profile, newest: Mapping[str, int], keys: Iterable[str], latest: int) -> Iterable[Ask]:
    for key in keys:
        yield Ask(key, newest[key] + 1)
        yield Ask(key, latest + 1)
        if profile is item:
            tile = newest[key] // TILE_US * TILE_US
            yield Ask(key, tile, before=tile)
            yield Ask(key, tile + TILE_US, before=tile + TILE_US)


def _read(profile: Profile, row: bytes, ask: Ask) -> dict[str, Any]:
    if profile is not item:
        return profile.values(row, ask.at)
    return item.values_at_tile(row, ask.before) if ask.before == ask.at else item.live_values(row, ask.at)

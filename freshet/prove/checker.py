"""The checker: asks the oracle about every store once all is quiet, and counts what was lost and doubled.

The comparisons are those of `freshet verify` (`monitoring.verify`), run on the rig's own settings; beside them stands
what only the harness knows: what was acknowledged, and each event counted by its id alone.
"""

import json
from collections import Counter
from collections.abc import Mapping

import duckdb

from feature_repo.features import user
from freshet.prove.verdict import Report
from freshet.settings import Settings
from monitoring import raw, verify
from monitoring.quiet import Progress
from monitoring.report import Check
from streams.backfill import backfill
from streams.topics import DEAD_LETTERS, EVENTS

COUNTED = """
WITH event AS (
    SELECT key, json_extract_string(text, '$.event_id') AS id, json_extract_string(text, '$.user_id') AS user_id
    FROM (SELECT key, CASE WHEN json_valid(decode(value)) THEN decode(value) END AS text
          FROM read_parquet('{files}', hive_partitioning = true)
          JOIN (SELECT unnest($partitions) AS p, unnest($ends) AS "end") USING (p) WHERE "offset" < "end")
)
SELECT decode(key), count(DISTINCT id) FROM event WHERE id != 'p' AND encode(user_id) = key GROUP BY 1
"""
"""Events of each user by their ids alone; 'p' is the workload's poison that is JSON."""


def check(settings: Settings, acknowledged: int, report: Report, tell: Progress, *, quiet: bool) -> None:
    """Fill in what the report says of the stores. Raises what `monitoring.verify` raises.

    Of a line that is not quiet only the users' states are judged, by the events that they say they hold: what has not
    come as far yet is not wrong.
    """
    backfilled = backfill(settings, progress=tell)
    evidence = verify.gather(settings, tell, folded_only=not quiet)
    if quiet:
        report.checks += verify.compare_all(settings, evidence, backfilled, tell)
        report.checks += [_acknowledged(evidence, acknowledged), _dead_letters(settings, evidence)]
    else:
        report.checks.append(verify.conservation(evidence.tallies, evidence.users.meta))
        report.checks.append(verify.check_rows(user, evidence.users, evidence.oracle, tell))
    report.checks.append(_once_each(settings, evidence, report))
    for name in ("applied", "late", "duplicate", "rejected"):
        setattr(report, name, sum(getattr(tally, name) for tally in evidence.tallies.values()))
    report.fingerprint = f"{sum(t.fingerprint for t in evidence.tallies.values()) % 2**64:016x}"
    report.users, report.items = len(evidence.users.rows), len(evidence.items.rows)


def _acknowledged(evidence: verify.Evidence, acknowledged: int) -> Check:
    check, there = Check("events that were acknowledged are in the topic, once", acknowledged), 0
    there = sum(len(found) for found in evidence.records.values())
    if there != acknowledged:
        check.differ(f"{acknowledged:,} records acknowledged, {there:,} in the topic", abs(there - acknowledged))
    return check


def _once_each(settings: Settings, evidence: verify.Evidence, report: Report) -> Check:
    check = Check("each event once in its user's count, by its id alone")
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        files, tallies = f"{settings.archive_dir / EVENTS}/p=*/*.parquet", evidence.tallies
        ends = {"partitions": list(tallies), "ends": [tally.next_offset for tally in tallies.values()]}
        counted = db.execute(COUNTED.format(files=files), ends).fetchall()
    want, rows = dict(counted), evidence.users.rows
    at = max(evidence.oracle.newest(user.key).values(), default=0)
    for user_id in want.keys() | rows.keys():
        row = rows.get(user_id)
        there = user.values(row, at)["events_ever"] if row is not None else 0
        check.compared += 1
        if there != want.get(user_id, 0):
            report.lost += max(0, want.get(user_id, 0) - there)
            report.doubled += max(0, there - want.get(user_id, 0))
            check.differ(f"user {user_id!r} has {there} events, {want.get(user_id, 0)} were sent")
    return check


def _dead_letters(settings: Settings, evidence: verify.Evidence) -> Check:
    check = Check("a dead letter for each rejected record, once")
    letters = [(p, json.loads(value or b"{}")) for p, (_, _, value) in raw.read(settings, DEAD_LETTERS)]
    quoted = [(p, letter["offset"]) for p, letter in letters if letter["topic"] == EVENTS]
    for partition, tally in evidence.tallies.items():
        mine = [offset for p, offset in quoted if p == partition]
        check.compared += tally.rejected
        if len(mine) != tally.rejected or len(set(mine)) != len(mine):
            check.differ(
                f"partition {partition}: {len(mine)} letters of {len(set(mine))} records, {tally.rejected} rejected"
            )
    return check


def check_stock(settings: Settings, done: Mapping[int, int], report: Report) -> None:
    """Fill in what the report says: the counts in the changelog against the records below the offsets `done`.

    Those the application has committed as done. What it did not come to is not lost.
    """
    found = raw.read(settings, EVENTS, level="read_uncommitted")
    want = Counter(key.decode() for p, (offset, key, _) in found if key and offset < done.get(p, 0))
    there: dict[str, int] = {}
    for _, (_, key, value) in raw.read(settings, f"{settings.app_id}-counts-changelog"):
        if key is not None and value is not None:
            there[key.decode().strip('"')] = int(value)
    check = Check("each record once in its user's count")
    for user_id in want.keys() | there.keys():
        check.compared, n = check.compared + 1, want[user_id]
        if there.get(user_id, 0) != n:
            report.lost += max(0, n - there.get(user_id, 0))
            report.doubled += max(0, there.get(user_id, 0) - n)
            check.differ(f"user {user_id!r} counts {there.get(user_id, 0)} of {n} records")
    report.users = len(want)
    report.checks.append(check)

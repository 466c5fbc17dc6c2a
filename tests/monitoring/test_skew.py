"""`verify --served` on the real line: answers as serving logs them, then one whose values were tampered with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from feature_repo.features import item, user
from freshet.settings import Settings
from monitoring import quiet, raw, skew
from monitoring.oracle import TILE_US
from monitoring.skew import SkewError
from streams.profiles import header
from streams.topics import ITEM_FEATURES, RESPONSES, USER_FEATURES, partition_of
from tests.monitoring.test_oracle import quiet as silent
from tests.monitoring.test_verify import line, send

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


def answers(settings: Settings) -> list[dict[str, Any]]:
    """An answer for every user at its newest version, and one for somebody new."""
    users, items = raw.rows(settings, USER_FEATURES).rows, raw.rows(settings, ITEM_FEATURES).rows
    numeric = [c.name for c in item.columns if c.dtype in ("int64", "float64")]
    heads = [head for row in (*users.values(), *items.values()) if (head := header(row)) is not None]
    at = max(head.created for head in heads) + 10 * TILE_US
    tile = at // TILE_US * TILE_US
    states: list[tuple[str, bytes | None]] = [*sorted(users.items()), ("somebody new", None)]
    out = []
    for n, (user_id, row) in enumerate(states):
        head = None if row is None else header(row)
        shown = dict(sorted(items.items())[n : n + 5])
        values = {name: item.values_at_tile(state, tile) for name, state in shown.items()}
        out.append(
            {
                "user_id": user_id,
                "at": at + n,
                "tile": tile,
                "user_version": -1 if head is None else head.version,
                "user_values": user.values(row, at + n),
                "item_values": {name: {c: v[c] for c in numeric} for name, v in values.items()},
            }
        )
    return out


def log(settings: Settings, some: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka})
    for answer in some:
        key = answer["user_id"].encode()
        partition = partition_of(key, settings.partitions)
        producer.produce(settings.topic(RESPONSES), json.dumps(answer).encode(), key, partition)
    assert producer.flush(30) == 0


def test_logged_answers_equal_what_training_pulls_and_a_tampered_one_does_not(
    settings: Settings, tmp_path: Path
) -> None:
    env = {**os.environ, **settings.as_env()}
    subprocess.run([sys.executable, "-m", "freshet.stack.setup"], env=env, check=True, capture_output=True)
    send(settings, 400)
    with line(settings, tmp_path):
        quiet.wait(settings, 90, silent)
    with pytest.raises(SkewError, match="0 answers are in the archive, 5 are needed"):
        skew.run(settings, at_least=5)
    some = answers(settings)
    log(settings, some)
    report = skew.run(settings, at_least=len(some))
    assert [check.examples for check in report.checks if check.mismatches] == []
    assert report.ok
    assert [check.compared for check in report.checks] == [len(some), 5 * len(some)]
    assert report.by_time is not None
    assert report.by_time.behind == 0

    stale = some[0] | {"user_values": some[0]["user_values"] | {"events_ever": 10_000}}
    skewed = some[1] | {
        "item_values": {k: v | {"views_7d": v["views_7d"] + 1} for k, v in some[1]["item_values"].items()}
    }
    behind = some[2] | {"user_version": -1, "user_values": user.values(None, some[2]["at"])}
    unread = some[3] | {"user_version": -1, "user_values": user.values(None, some[3]["at"])}
    log(settings, [stale, skewed, behind, unread | {"fallback": ["features_unavailable"]}])
    report = skew.run(settings)
    users, items = report.checks
    assert users.mismatches == 1
    assert "events_ever: served 10000" in users.examples[0]
    assert items.mismatches >= 5  # other answers show some of these items, too
    assert report.by_time is not None
    assert (report.by_time.behind, report.by_time.unread) == (1, 1)
    assert report.by_time.lag_ms["p50"] > 0

"""`verify` on the real line, from Kafka to the offline store; then with faults planted in the stores."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis

from feature_repo.features import user
from feature_repo.layout import entity_key, pack_bytes, state_field
from freshet.settings import Settings
from freshet.stack.ports import choose
from monitoring import quiet, verify
from monitoring.report import Check, VerifyReport
from monitoring.verify import VerifyError
from streams.events import Event, encode
from streams.topics import EVENTS, USER_FEATURES, partition_of
from tests.monitoring.test_oracle import history

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
COMMANDS = {
    "worker": ["faust", "-A", "streams.app", "worker", "-l", "info", "--without-web"],
    "online": ["streams.sinks", "online"],
}


@contextmanager
def line(settings: Settings, folder: Path) -> Iterator[None]:
    """The worker and the online sink, as processes."""
    with ExitStack() as stack:
        for n, (name, command) in enumerate(COMMANDS.items()):
            env = {**os.environ, **settings.as_env(), "FRESHET_SINK_METRICS_PORT": str(choose(31_000 + n))}
            out = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-m", *command], env=env, stdout=out, stderr=subprocess.STDOUT)
            )
            stack.callback(process.kill)
        yield


def send(settings: Settings, n: int) -> int:
    """A history with duplicates, late events and records that are no events; returns how many records."""
    producer = Producer({"bootstrap.servers": settings.kafka})
    records = history(seed=1, n=n)
    for _, key, value in records:
        assert key is not None
        partition = partition_of(key, settings.partitions)
        producer.produce(settings.topic(EVENTS), value, key, partition)
    assert producer.flush(30) == 0
    return len(records)


def found(report: VerifyReport, begins: str) -> Check:
    """The check whose name begins so."""
    return next(check for check in report.checks if check.name.startswith(begins))


def test_verify_holds_on_the_real_line_and_catches_what_is_planted(settings: Settings, tmp_path: Path) -> None:
    total = send(settings, 1)
    with pytest.raises(quiet.NotQuiet, match="records of events"):
        verify.run(settings, limit_s=0.1)
    total += send(settings, 1_200)
    labels: set[str] = set()
    with line(settings, tmp_path):
        report = verify.run(settings, limit_s=240, progress=lambda label, done, total: labels.add(label))
    assert [c.examples for c in report.checks if c.mismatches] == []
    assert report.ok
    assert sum(p.events for p in report.partitions) == total
    assert (
        min(sum(getattr(p, name) for p in report.partitions) for name in ("applied", "late", "duplicate", "rejected"))
        > 0
    )
    assert all(check.compared for check in report.checks)
    assert len(labels) >= 6
    assert report.to_json()["ok"] is True

    with Redis.from_url(settings.redis_url) as client:  # another user's state under a user's key, and one that is gone
        keys = [entity_key(user.key, name) for name in ("u0", "u1", "u2", "stranger")]
        wrong = client.hget(keys[1], state_field("user"))  # type: ignore[arg-type]
        client.hset(keys[0], state_field("user"), wrong)  # type: ignore[arg-type]
        client.delete(keys[2])
        client.hset(keys[3], state_field("user"), pack_bytes(b"x"))  # type: ignore[arg-type]
    report = verify.run(settings)
    assert not report.ok
    assert found(report, "Redis: the state of every user").mismatches == 3
    assert found(report, "user-features").mismatches == 0

    _plant_row_without_an_event(settings)
    _tell_redis(settings)
    report = verify.run(settings)
    assert found(report, "user-features").mismatches > 0
    assert "u3" in found(report, "user-features").examples[0]
    assert found(report, "offline store: a row for every event").mismatches > 0


def _plant_row_without_an_event(settings: Settings) -> None:
    """A row of u3, at a version of its own, in which all but one event are missing."""
    state = user.new()
    user.update(state, Event("x", "u3", "i0", "view", 1_700_000_000_000_000, 1_700_000_000_000_000))
    state.version = 1 << 40
    producer = Producer({"bootstrap.servers": settings.kafka})
    producer.produce(settings.topic(USER_FEATURES), user.encode(state), b"u3", partition_of(b"u3", settings.partitions))
    assert producer.flush(30) == 0


def _tell_redis(settings: Settings) -> None:
    """No sink runs any more: put its progress behind the planted row, so that the line counts as quiet."""
    with Redis.from_url(settings.redis_url) as client:
        key = f"freshet:progress:{settings.topic(USER_FEATURES)}"
        for partition in range(settings.partitions):
            client.hincrby(key, str(partition), 10)


def test_events_that_come_in_meanwhile_are_an_error_and_those_not_folded_yet_no_mismatch(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, 30)
    sent: list[float] = []

    def progress(label: str, done: int, total: int | None) -> None:
        if label.startswith("comparing user-features") and not sent:
            sent.append(time.monotonic())
            producer = Producer({"bootstrap.servers": settings.kafka})
            event = Event("more", "u0", "i0", "view", 1, 1)
            producer.produce(settings.topic(EVENTS), encode(event), b"u0", partition_of(b"u0", settings.partitions))
            producer.flush(30)

    with line(settings, tmp_path), pytest.raises(VerifyError, match="stop the senders"):
        verify.run(settings, limit_s=240, progress=progress)

    send(settings, 30)  # nobody folds these: a line that is only slow
    for folded_only, wrong in ((True, False), (False, True)):
        evidence = verify.gather(settings, progress, folded_only=folded_only)
        assert bool(verify.conservation(evidence.tallies, evidence.users.meta).mismatches) is wrong
        if not wrong:
            assert verify.check_rows(user, evidence.users, evidence.oracle, progress).mismatches == 0

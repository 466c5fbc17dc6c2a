"""Estimates from logged propensities: right where the truth is known, and wrong where the propensities are."""

import tracemalloc
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from freshet.settings import Settings
from streams import events
from streams.events import Event
from streams.sinks import files
from streams.topics import EVENTS, RESPONSES
from training.intervals import SEED, Bootstrap, Interval
from training.off_policy import POLICIES, Decision, Draw, Estimate, NothingLogged, estimates, read

POOL = 6


def logged(n: int, seed: int, *, honest: bool = True) -> tuple[list[Decision], dict[str, float]]:
    """Decisions of a known policy on items of known chances, and the clicks a place that each policy would get."""
    rng = np.random.default_rng(seed)
    decisions, truth = list[Decision](), dict.fromkeys(POLICIES, 0.0)
    for _ in range(n):
        weight = rng.dirichlet(np.full(POOL, 2.0)) * POOL
        chance = np.clip(0.12 * weight + 0.1 * rng.random(POOL), 0, 1)
        propensity = 0.7 * rng.dirichlet(weight) + 0.3 / POOL
        chosen = int(rng.choice(POOL, p=propensity))
        shown = propensity if honest else np.full(POOL, 1 / POOL)
        draw = Draw(
            chosen, [f"i{k}" for k in range(POOL)], shown.tolist(), weight.tolist(),
            rng.integers(0, 5, POOL).astype(float).tolist(), rng.integers(5, 60, POOL).astype(float).tolist(), 0.1,
        )  # fmt: skip
        decisions.append(Decision(f"u{rng.integers(n // 3)}", draw, float(rng.random() < chance[chosen])))
        for name, policy in POLICIES.items():
            truth[name] += float(policy(draw) @ chance) / n
    return decisions, truth


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def test_every_estimator_finds_what_each_choice_is_worth() -> None:
    found = total = 0
    for seed in range(6):
        decisions, truth = logged(2_000, seed)
        for one in estimates(decisions):
            for interval in (one.ips, one.snips, one.dr):
                total += 1
                found += holds(interval, truth[one.policy])
                assert interval.mean == pytest.approx(truth[one.policy], rel=0.35)
    assert found >= 0.85 * total


def test_wrong_propensities_are_not_forgiven() -> None:
    """The check above can fail: here the log says that items were drawn evenly, and they were not."""
    missed = 0
    for seed in range(6):
        decisions, truth = logged(2_000, seed, honest=False)
        by_name = {one.policy: one for one in estimates(decisions)}
        missed += not holds(by_name["any, evenly"].ips, truth["any, evenly"])
    assert missed >= 4


def test_the_served_choice_is_worth_its_own_clicks() -> None:
    decisions, _ = logged(500, 1)
    served: Estimate = estimates(decisions)[0]
    clicks = np.mean([d.reward for d in decisions])
    assert served.ips.mean == pytest.approx(clicks)
    assert served.snips.mean == pytest.approx(clicks)
    assert served.dr.mean == pytest.approx(clicks, rel=0.05)
    assert served.effective == pytest.approx(500)


class Record(NamedTuple):
    """What the archive takes of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


def test_decisions_are_read_from_the_archive(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(NothingLogged, match="FRESHET_EXPLORE_SHARE"):
        read(settings)
    draw = Draw(1, ["i1", "i2"], [0.4, 0.6], [1.0, 1.0], [0.0, 2.0], [3.0, 9.0], 0.1)
    plain = {"request_id": "r0", "user_id": "ada", "explored": []}
    answers = [plain, *({"request_id": f"r{n}", "user_id": "bob", "explored": [draw]} for n in (1, 2))]
    clicks = [
        Event("e1", "bob", "i2", "click", 10, 10, request_id="r1"),
        Event("e2", "bob", "i1", "click", 10, 10, request_id="r2"),
        Event("e3", "bob", "i2", "view", 10, 10, request_id="r2"),
    ]
    files.write(
        settings.archive_dir, RESPONSES, 0, [Record(n, 0, b"u", msgspec.json.encode(a)) for n, a in enumerate(answers)]
    )
    files.write(settings.archive_dir, EVENTS, 0, [Record(n, 0, b"bob", events.encode(e)) for n, e in enumerate(clicks)])
    assert [(d.user_id, d.draw, d.reward) for d in read(settings)] == [("bob", draw, 1.0), ("bob", draw, 0.0)]
    with pytest.raises(NothingLogged, match="2 explored places are archived, at least 100"):
        estimates(read(settings))


def test_reading_holds_a_few_responses_at_a_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    answer = {"request_id": "r", "user_id": "ada", "items": ["x" * 12_000]}
    record = Record(0, 0, b"u", msgspec.json.encode(answer))
    files.write(settings.archive_dir, RESPONSES, 0, [record._replace(offset=n) for n in range(4_000)])
    tracemalloc.start()
    try:
        with pytest.raises(NothingLogged):
            read(settings)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # all of them are 48 MB
    finally:
        tracemalloc.stop()


def test_the_bootstrap_of_many_users_fits_in_a_byte_each() -> None:
    """And draws what it would have drawn at once."""
    values = np.random.default_rng(1).random(6_000)
    users = [f"{n % 2_000:04}" for n in range(len(values))]
    tracemalloc.start()
    try:
        found = Bootstrap(users).interval(values.tolist())
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # numpy's own draws are 32 MB
    finally:
        tracemalloc.stop()
    sums = values.reshape(3, -1).sum(0)
    draws = np.random.default_rng(SEED).multinomial(2_000, np.full(2_000, 1 / 2_000), size=2_000)
    assert found[1:] == pytest.approx(np.quantile(draws @ sums / 6_000, [0.025, 0.975]).tolist())

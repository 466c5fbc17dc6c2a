"""Drift: chance and small moves do not alarm, a planted shift does; answers are read and compared as the docs say."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feature_repo.features import item, user
from freshet.settings import Settings
from monitoring import drift, exporter, served
from monitoring.drift import METRICS, DriftColumn, DriftVerdict, judge
from streams.sinks import files
from streams.topics import RESPONSES


def gamma(seed: int, n: int, scale: float = 1.0) -> "pd.Series[float]":
    return pd.Series(np.random.default_rng(seed).gamma(2.0, scale, n))


def test_samples_of_one_distribution_never_alarm() -> None:
    for n in (60, 300):
        for seed in range(10):
            reference = {f"c{k}": gamma(1_000 + k, 2_000) for k in range(10)}
            now = {f"c{k}": gamma(100 * seed + k, n) for k in range(10)}
            assert [c.name for c in judge(reference, now) if c.drifted] == []


def test_a_small_window_needs_a_larger_move() -> None:
    reference = {"c": gamma(1, 2_000)}
    few, many = (judge(reference, {"c": gamma(2, n)})[0].threshold for n in (50, 2_000))
    assert few >= many == drift.LEAST
    assert drift.chance(gamma(1, 2_000).to_numpy(), 50, 0.001) > 2 * drift.chance(
        gamma(1, 2_000).to_numpy(), 2_000, 0.001
    )


def test_a_shift_is_found_and_named_with_score_and_threshold() -> None:
    reference = {"a": gamma(1, 2_000), "b": gamma(2, 2_000)}
    columns = judge(reference, {"a": gamma(3, 300), "b": gamma(4, 300) * 2})
    assert [c.name for c in columns if c.drifted] == ["b"]
    assert columns[0].name == "b"
    assert columns[0].score > columns[0].threshold >= drift.LEAST


def test_columns_without_enough_values_or_variation_are_not_judged() -> None:
    reference = {"few": gamma(1, 20), "same": pd.Series([1.0] * 200), "good": gamma(1, 200)}
    assert [c.name for c in judge(reference, reference)] == ["good"]


def answer(n: int, **changes: object) -> dict[str, object]:
    of_item = {c.name: c.default for c in item.columns if c.dtype in ("int64", "float64")}
    base = {
        "user_id": f"u{n % 40}",
        "at": 1_000_000 * n,
        "bundle": "3",
        "arm": "champion",
        "fallback": [],
        "items": [{"item_id": f"i{n % 7}", "score": 0.5}, {"item_id": "i8", "score": 0.25}],
        "user_values": {c.name: c.default for c in user.columns},
        "item_values": {f"i{n % 7}": of_item | {"likes_7d": n}, "i8": of_item},
    }
    return base | changes


def archived(settings: Settings, answers: list[dict[str, object]]) -> None:
    class Record(msgspec.Struct):
        offset: int
        value: bytes
        key: bytes | None = None
        timestamp: int = 0

    files.write(settings.archive_dir, RESPONSES, 0, [Record(n, json.dumps(a).encode()) for n, a in enumerate(answers)])


def test_only_the_champions_own_whole_answers_of_the_window_are_read(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    others = [
        answer(1, arm="popular"),
        answer(2, fallback=["new_user"]),
        answer(3, bundle="2"),
        answer(4, bundle=None),
        answer(500),
    ]
    archived(settings, [answer(n) for n in range(100)] + others)
    found = served.read(settings, "3", 0, 200_000_000)
    assert (found.answers, found.users, len(found.frame)) == (100, 40, 200)
    names = {f"user__{c.name}" for c in user.columns if c.dtype in ("int64", "float64")}
    assert names < set(found.frame.columns)
    assert not any(c.dtype == "string[]" and f"user__{c.name}" in found.frame for c in user.columns)


def test_a_large_window_is_sampled_evenly(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    archived(settings, [answer(n) for n in range(1_000)])
    found = served.read(settings, "3", 0, 10**12, most=500)
    assert found.answers == 1_000
    assert 250 <= len(found.frame) <= 500
    newest = found.frame["item__likes_7d"].max()
    assert newest > 990


def test_more_traffic_and_growing_totals_are_no_drift_but_dearer_things_are() -> None:
    rng = np.random.default_rng(0)
    n = 600
    names = [f"{p.name}__{c.name}" for p in (user, item) for c in p.columns if c.dtype in ("int64", "float64")]
    reference = pd.DataFrame({name: rng.gamma(2.0, 5.0, n) + 1 for name in names} | {"score": rng.normal(size=n)})
    busy = reference.copy()
    for name in names:
        if name.split("__")[1].split("_")[0] in ("views", "clicks", "likes", "purchases", "spend", "ratings"):
            busy[name] *= 10
        if "ever" in name or name.endswith("_s"):
            busy[name] += 1_000
    busy["score"] += 5
    assert [c.name for c in judge(served.comparable(reference), served.comparable(busy)) if c.drifted] == []
    dear = reference.assign(user__spend_30d=reference["user__spend_30d"] * 3)
    assert [c.name for c in judge(served.comparable(reference), served.comparable(dear)) if c.drifted] == [
        "user__spend_30d an event"
    ]


def verdict() -> DriftVerdict:
    column = DriftColumn("user__x", 0.75, 0.5, True, 100, 200)
    return DriftVerdict(5_000_000, 1, "3", 10, 4, True, 1, 1, [column], served.SKIPPED, "drift.html", 1.0)


def test_the_metrics_say_what_the_verdict_says() -> None:
    families = {f.name: f for f in text_string_to_metric_families(drift.exposition(verdict()))}
    assert families.keys() == METRICS.keys()
    assert families["freshet_drift_alarm"].samples[0].value == 1
    sample = families["freshet_drift_score"].samples[0]
    assert (sample.labels, sample.value) == ({"column": "user__x"}, 0.75)


def test_the_json_keeps_its_form() -> None:
    form = verdict().to_json()
    assert form["format"] == 1
    assert form.keys() >= {"at", "since", "bundle", "answers", "drifted", "columns", "skipped", "alarm_at", "html"}
    assert form["columns"][0].keys() == {"name", "score", "threshold", "drifted", "reference_rows", "served_rows"}


def test_the_exporter_answers_with_the_last_verdict(tmp_path: Path) -> None:
    import httpx

    file = tmp_path / "drift.prom"
    server = exporter.serve("127.0.0.1", 0, file)
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert httpx.get(f"{address}/metrics").text == ""
        file.write_text(drift.exposition(verdict()))
        assert "freshet_drift_alarm 1.0" in httpx.get(f"{address}/metrics").text
        assert httpx.get(f"{address}/").status_code == 404
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_the_report_is_written_and_holds_the_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user__x": gamma(1, 300), "score": gamma(2, 300)})
    drift.write_html(frame, frame * 2, tmp_path / "drift.html")
    text = (tmp_path / "drift.html").read_text()
    assert "user__x" in text
    assert len(text) > 100_000

"""What a question knows: all that had arrived before it, and nothing else."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.cascade import allowed
from feature_repo.apply import feast
from feature_repo.features import liked
from feature_repo.features import user as user_profile
from feature_repo.store import open_store
from freshet.settings import Settings
from streams.backfill import backfill
from streams.catalogue import Item
from streams.events import Event, Micros
from tests.conftest import Redis
from tests.streams.folded import SECOND, archive, history, partitioned
from training import evaluation, point_in_time
from training.datasets import Asking, NoData, Question, Skew, asked_before, audit, questions, read_log
from training.point_in_time import BadLabels, training_set

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]
EVENTS = history(900)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW: Micros = EVENTS[600].arrival + 1
"""Questions are asked up to here; what arrives later must not be seen."""


@pytest.fixture(scope="module")
def settings(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """With Feast's registry in place; it is the same for every history."""
    made = Settings(home=tmp_path_factory.mktemp("home"), redis_url=redis_server.url)
    feast(made, "apply")
    return made


def ask(settings: Settings, events: Sequence[Event], asking: Sequence[tuple[str, Micros]]) -> list[Question]:
    """Archive and backfill these events, then ask each (user, instant)."""
    shutil.rmtree(settings.archive_dir, ignore_errors=True)
    archive(settings, partitioned(settings, events))
    backfill(settings, archived_only=True)
    log = read_log(settings, [f"i{n}" for n in range(15)])
    asks = [Asking(log.user_ids.index(user_id), at, ("i0",)) for user_id, at in asking]
    return list(questions(settings, log, asks, {"i0": Item("i0", "", ("a",))}))


ASKED = [(f"u{n % 20}", NOW - 1 - (40 - n) * 7_000 * SECOND) for n in range(40)]


def test_what_arrives_later_changes_nothing(settings: Settings) -> None:
    """The planted events happened before the questions, were sent after them, and would be in every feature."""
    leaks = [
        Event(f"leak{n}", user_id, f"i{n % 15}", "purchase", at - 300 * SECOND, NOW + n, 5.0, ("leak",))
        for n, (user_id, at) in enumerate(ASKED)
    ]
    known = [e for e in EVENTS if e.arrival < NOW]
    before, after = ask(settings, known, ASKED), ask(settings, [*known, *leaks], ASKED)
    assert len(before) == len(after) == len(ASKED)
    for one, other in zip(before, after, strict=True):
        assert one.user_values == other.user_values
        assert one.items.ids == other.items.ids
        assert (one.items.values == other.items.values).all()
        assert one.seen == other.seen
    later = [(user_id, NOW + 3_600 * SECOND) for user_id, _ in ASKED[:20]]
    for question in ask(settings, [*known, *leaks], later):  # the leaks can be seen, so the test can fail
        assert "leak" in question.user_values["interest"]
        assert question.user_values["purchases_30d"] > 0


def test_a_question_does_not_know_its_own_answer(settings: Settings) -> None:
    """Not of an event either whose sender's clock goes ahead: it arrives before it happens."""
    last = EVENTS[-1]
    ahead = Event("ahead", last.user_id, "i-ahead", "like", last.arrival + 40 * SECOND, last.arrival, None, ("a",))
    ask(settings, [*EVENTS, ahead], ASKED[:1])
    log = read_log(settings, [])
    picks = [n for n in range(len(log)) if log.liked[n]][-60:]
    assert log.item_ids[log.items[picks[-1]]] == "i-ahead"
    found = list(questions(settings, log, asked_before(log, picks), {}))
    for question, n in zip(found, picks, strict=True):
        assert question.positives == (log.item_ids[log.items[n]],)
        assert question.positives[0] not in question.seen
        assert question.positives[0] not in question.user_values["history"]
        assert question.at == log.at[n] - 1


def test_what_was_not_there_yet_is_no_rival(settings: Settings) -> None:
    """Neither to the cascade nor to a baseline. An item that was liked before its time was there all along."""
    ask(settings, EVENTS, ASKED[:1])
    born = ASKED[20][1]
    log = read_log(settings, [f"i{n}" for n in range(15)] + ["soon"])
    made = {item_id: Item(item_id, "", created_at=born) for item_id in ("i3", "soon")}
    best = evaluation.ranked("any", lambda question: np.ones(len(question.items), dtype=np.float32))
    found = list(questions(settings, log, [Asking(0, at, ("i0",)) for _, at in ASKED], made))
    for question in found:
        may = allowed(evaluation.ask(replace(question, seen=frozenset())))
        assert ("soon" in best(question)["any"][0]) == may[question.items.index["soon"]] == (question.at >= born)
    assert {question.at >= born for question in found} == {False, True}
    assert "i3" in best(replace(found[0], seen=frozenset()))["any"][0]


def test_user_values_are_the_fold_of_what_was_known(settings: Settings) -> None:
    punctual = [replace_arrival(e) for e in EVENTS]
    punctual.sort(key=lambda e: e.event_time)
    for question in ask(settings, punctual, ASKED):
        state = user_profile.new()
        for event in punctual:
            if event.user_id == question.user_id and event.event_time <= question.at:
                user_profile.update(state, event)
        assert question.user_values == user_profile.values(state, question.at)


def replace_arrival(event: Event) -> Event:
    """The same event, known when it happened."""
    return Event(*(getattr(event, n) if n != "arrival" else event.event_time for n in Event.__struct_fields__))


def test_feast_agrees_on_every_column_and_a_difference_stops_the_training(settings: Settings) -> None:
    found = ask(settings, EVENTS, ASKED)
    pairs = [(q, f"i{n % 15}") for n, q in enumerate(found)]
    columns = len(found[0].user_values) + found[0].items.values.shape[1]
    assert audit(open_store(settings), pairs) == len(pairs) * columns
    wrong = replace(found[3], user_values={**found[3].user_values, "views_7d": 999})
    with pytest.raises(Skew, match="views_7d"):
        audit(open_store(settings), [(wrong, "i1")])


def test_slices_of_a_training_set_are_the_whole(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(settings, EVENTS, ASKED[:1])
    some = EVENTS[:40]
    labels = pa.table(
        {
            "user_id": [e.user_id for e in some],
            "item_id": [e.item_id for e in some],
            "event_timestamp": pa.array([e.event_time for e in some], pa.timestamp("us", tz="UTC")),
        }
    )
    (whole,) = point_in_time.joined(settings, labels)
    monkeypatch.setattr(point_in_time, "SLICE", 7)
    parts = list(point_in_time.joined(settings, labels))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 7, 5]
    assert pa.concat_tables(parts).equals(whole)


def test_a_training_set_is_what_feast_joins_in_the_order_of_the_labels(settings: Settings, tmp_path: Path) -> None:
    ask(settings, EVENTS, ASKED[:1])
    some = [EVENTS[n] for n in range(0, len(EVENTS), 3)]
    labels = pa.table(
        {
            "n": range(len(some)),
            "user_id": [e.user_id if n % 10 else "nobody" for n, e in enumerate(some)],
            "item_id": [f"i{n % 15}" for n in range(len(some))],
            "event_timestamp": pa.array([e.event_time for e in some], pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(labels, tmp_path / "labels.parquet")
    point_in_time.CHUNK, chunk = 100, point_in_time.CHUNK
    try:
        assert training_set(settings, tmp_path / "labels.parquet", tmp_path / "set") == len(some)
    finally:
        point_in_time.CHUNK = chunk
    assert len(list((tmp_path / "set").iterdir())) == 3
    mine = pq.read_table(tmp_path / "set").to_pylist()
    assert [row["n"] for row in mine] == list(range(len(some)))
    frame = labels.to_pandas()
    frame["at"] = frame["event_timestamp"].astype("datetime64[us, UTC]").astype("int64")
    store = open_store(settings)
    theirs = store.get_historical_features(
        frame, store.get_feature_service("ranker"), filter_by_created_timestamp=True
    ).to_df()
    columns = [name for name in mine[0] if "__" in name]
    assert len(columns) > 30
    for row in theirs.to_dict("records"):
        for name in columns:
            expected = list(row[name]) if isinstance(mine[row["n"]][name], list) else row[name]
            assert mine[row["n"]][name] == expected, name
    assert sum(row["user__views_7d"] for row in mine) > 0


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"user_id": ["a"], "item_id": ["b"]}, "no column 'event_timestamp'"),
        ({"user_id": ["a"], "item_id": ["b"], "event_timestamp": [1]}, "must be a timestamp"),
        (
            {"user_id": ["a"], "item_id": ["b"], "event_timestamp": [NOON], "item__age_s": [1.0]},
            "'item__age_s' already",
        ),
        ({"user_id": [None], "item_id": ["b"], "event_timestamp": [NOON]}, "user_id is empty in 1 of rows 1 to 1"),
        ({"user_id": [], "item_id": [], "event_timestamp": pa.array([], pa.timestamp("us"))}, "holds no label"),
    ],
)
def test_labels_that_cannot_be_joined_say_why(columns: dict[str, object], why: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(BadLabels, match=why):
        training_set(Settings(home=tmp_path), tmp_path / "labels.parquet", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))


def test_a_training_set_replaces_nothing(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user_id": ["a"], "item_id": ["b"], "event_timestamp": [NOON]}), tmp_path / "labels.parquet"
    )
    (tmp_path / "set").mkdir()
    with pytest.raises(BadLabels, match="exists already"):
        training_set(Settings(home=tmp_path), tmp_path / "labels.parquet", tmp_path / "set")


def test_the_log_holds_first_opinions_in_order(settings: Settings) -> None:
    ask(settings, EVENTS, ASKED[:1])
    log = read_log(settings, ["i14", "i2"])
    assert log.item_ids[:2] == ("i14", "i2")
    assert (log.at[1:] >= log.at[:-1]).all()
    opinions = [e for e in EVENTS if e.type == "rate" or liked.selects(e.type, e.value)]
    assert len(log) == len({(e.user_id, e.item_id) for e in opinions})
    dense = log.matrix(len(log)).toarray()
    assert dense.max() == 1
    assert dense.sum() == log.liked.sum()


def test_no_archive_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="archive"):
        read_log(Settings(home=tmp_path), [])

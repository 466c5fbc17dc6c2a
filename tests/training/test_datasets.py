"""What a question knows: all that had arrived before it, and nothing else."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from feature_repo.apply import feast
from feature_repo.features import liked
from feature_repo.features import user as user_profile
from feature_repo.store import open_store
from freshet.settings import Settings
from streams.backfill import backfill
from streams.events import Event, Micros
from tests.conftest import Redis
from tests.streams.folded import SECOND, archive, history, partitioned
from training.datasets import Asking, NoData, Question, Skew, asked_before, audit, questions, read_log

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]
EVENTS = history(900)
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
    return list(questions(settings, log, asks, {"i0": ("a",)}, open_store(settings)))


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
    ask(settings, EVENTS, ASKED[:1])
    log = read_log(settings, [])
    picks = [n for n in range(len(log)) if log.liked[n]][-60:]
    found = list(questions(settings, log, asked_before(log, picks), {}, open_store(settings)))
    for question, n in zip(found, picks, strict=True):
        assert question.positives == (log.item_ids[log.items[n]],)
        assert question.positives[0] not in question.seen
        assert question.at == log.at[n] - 1


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

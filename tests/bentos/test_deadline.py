"""How long a question may take, by a clock of the test's own."""

from pathlib import Path

import pytest

from bentos import deadline
from bentos.answering import Answering
from bentos.bundle import Bundle
from bentos.cascade import Ask, Cascade, Features
from bentos.users import Users
from freshet.settings import Settings
from tests.bentos.small import cascade, item_matrix

MS = 0.001


async def test_each_user_of_a_batch_has_the_whole_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, recall = 100.0, Cascade.features

    def slow(self: Cascade, ask: Ask) -> Features:
        nonlocal at
        at += 80 * MS if ask.user_id == "u70" else 4 * MS
        return recall(self, ask)

    async def nobody(self: Users, user_id: str) -> None: ...

    monkeypatch.setattr(Cascade, "features", slow)
    monkeypatch.setattr(Users, "get", nobody)
    monkeypatch.setattr(deadline, "perf_counter", lambda: at)
    answering = Answering(Settings(home=tmp_path))
    answering.items.matrix, answering.items.seen = item_matrix(), True
    answering.champion.bundle = Bundle(cascade(), {}, "7")
    deadline.begin(b"50", 150)
    answers = await answering.recommend_each([f"u{n}" for n in range(100)], 5, {}, ())
    assert [answer.user_id for answer in answers if "rank_skipped" in answer.fallback] == ["u70"]

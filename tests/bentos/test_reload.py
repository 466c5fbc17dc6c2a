"""A new champion is taken up while questions are answered; one that cannot be trusted or cannot answer is not."""

import asyncio
import dataclasses
import logging
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from bentos import bundle, deadline
from bentos.answering import MODEL_FAILED, RANK_SKIPPED, RERANK_SKIPPED, Answering
from bentos.bundle import Bundle
from bentos.cascade import Ask, Cascade
from freshet.settings import Settings
from streams.catalogue import Item, send_items
from streams.publisher import Publisher
from tests.bentos.running import recommend, serve
from tests.bentos.small import CATEGORIES, DIM, ITEMS, cascade, item_matrix, liking
from training.networks import DinModule
from training.registry import track

PATIENCE_S = 60


def broken() -> Cascade:
    """A cascade whose ranking expects three inputs: it raises on every question."""
    return dataclasses.replace(cascade(), din=DinModule(3, DIM).din())


def champion(settings: Settings, folder: Path, model: Cascade) -> str:
    """Register a bundle and make it champion."""
    shutil.rmtree(folder, ignore_errors=True)
    bundle.save(folder, model, settings.signing_key())
    version = track(settings, folder, {}, {}, "", [])
    assert version is not None
    return version


def await_bundle(client: httpx.Client, version: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while recommend(client, user_id="ada", k=3)["bundle"] != version:
        assert time.monotonic() < give_up, f"bundle {version} is not taken up"
        time.sleep(0.2)


def await_log(file: Path, text: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while text not in file.read_text(errors="replace"):
        assert time.monotonic() < give_up, f"the log does not say {text!r}"
        time.sleep(0.2)


def keep_asking(url: httpx.URL, codes: list[int], over: threading.Event) -> None:
    """Ask without a pause, noting each status, until it is over."""
    with httpx.Client(base_url=url, timeout=10) as client:
        while not over.is_set():
            codes.append(client.post("/recommend", json={"user_id": "eve", "k": 20}).status_code)


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
async def test_a_new_champion_is_taken_up_without_a_failed_answer(settings: Settings, tmp_path: Path) -> None:
    async with Publisher(settings) as publisher:
        await send_items(publisher, [Item(f"i{n}", f"Item {n}", (CATEGORIES[n % 3],)) for n in range(ITEMS)])
    first = champion(settings, tmp_path / "made", cascade())
    for client in serve(settings, tmp_path):
        await_bundle(client, first)
        assert recommend(client, user_id="ada", k=3)["fallback"] == ["new_user"]
        hasty = client.post("/recommend", json={"user_id": "ada", "k": 3}, headers={"X-Deadline-Ms": "1"}).json()
        assert len(hasty["items"]) == 3, "whichever stages it had the time for"
        codes, over = list[int](), threading.Event()
        asking = threading.Thread(target=keep_asking, args=(client.base_url, codes, over))
        asking.start()
        try:
            refused = champion(settings, tmp_path / "made", broken())
            await_log(tmp_path / "serve.log", f"bundle {refused} is not used")
            assert recommend(client, user_id="ada", k=3)["bundle"] == first
            third = champion(settings, tmp_path / "made", cascade(diversity=0.5))
            await_bundle(client, third)
        finally:
            over.set()
            asking.join()
        assert set(codes) == {200}


async def test_a_model_that_raises_is_a_fallback_and_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answering = Answering(Settings(home=tmp_path))
    answering.items.seen = True
    ask = Ask("ada", liking("i3"), item_matrix(), 5)
    with caplog.at_level(logging.ERROR):
        answer, lacking = answering._pick(ask, Bundle(broken(), {}, "7"), "champion")
    assert lacking == [MODEL_FAILED]
    assert len(answer.picks) == 5
    assert "bundle 7 failed on user 'ada'" in caplog.text
    assert answering._pick(ask, Bundle(broken(), {}, "7"), "popular")[1] == []


@pytest.mark.parametrize(("late", "lacking"), [([True], [RANK_SKIPPED]), ([False, True], [RERANK_SKIPPED])])
def test_a_stage_left_out_is_a_fallback(
    late: list[bool], lacking: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "passed", iter(late).__next__)
    answering = Answering(Settings(home=tmp_path))
    answering.items.seen = True
    ask = Ask("ada", liking("i3"), item_matrix(), 5)
    answer, left_out = answering._pick(ask, Bundle(cascade(), {}, "7"), "champion")
    assert (len(answer.picks), left_out) == (5, lacking)


async def test_what_comes_in_during_an_answer_reaches_the_guard_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering, seen = Answering(Settings(home=tmp_path)), list[str]()
    coming: list[asyncio.Task[None]] = []

    async def guard() -> None:
        seen.append("guard")

    async def timeout() -> None:
        await asyncio.create_task(guard())

    def compute(name: str) -> None:
        seen.append(name)
        if name == "first":
            coming.append(asyncio.create_task(timeout()))

    monkeypatch.setattr(answering, "_answer", compute)
    await asyncio.gather(answering._in_turn("first"), answering._in_turn("second"), answering._in_turn("third"))
    assert seen == ["first", "guard", "second", "third"]

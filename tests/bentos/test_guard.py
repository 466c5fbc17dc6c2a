"""The guard before every endpoint, as an ASGI application of its own: what it lets through, what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bentos import deadline, security
from freshet.settings import Settings

KEY = "open sesame"
JSON = {"Content-Type": "application/json"}


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def fails(_: Request) -> PlainTextResponse:
    raise RuntimeError("an error of ours")


async def slow(_: Request) -> PlainTextResponse:
    await asyncio.sleep(0.05)
    return PlainTextResponse(str(deadline.passed()))


def guarded(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> httpx.AsyncClient:
    """A client of the guard with these settings."""
    monkeypatch.setattr(security, "get_settings", lambda: Settings(**changes))
    paths = ("/recommend", "/livez", "/", "/console/app.js")
    more = [Route("/fails", fails), Route("/trending", slow)]
    app = Starlette(routes=[*(Route(p, echo, methods=["GET", "POST"]) for p in paths), *more])
    transport = httpx.ASGITransport(security.Guard(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://freshet")


async def test_a_body_is_bounded_whether_or_not_its_length_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b"x" * 1024

    async with guarded(monkeypatch) as client:
        most = security.MAX_BODY
        assert (await client.post("/recommend", content=b"x" * most, headers=JSON)).text == str(most)
        assert (await client.post("/recommend", content=b"x" * (most + 1), headers=JSON)).status_code == 413
        chunked = JSON | {"Transfer-Encoding": "chunked"}
        assert (await client.post("/recommend", content=pieces(most), headers=chunked)).text == str(most)
        assert (await client.post("/recommend", content=pieces(most + 1024), headers=chunked)).status_code == 413


async def test_a_question_comes_as_json_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page of another site may send without being asked (a form, text, no type) is not taken."""
    async with guarded(monkeypatch) as client:
        for media in ("application/json", "Application/JSON; charset=utf-8"):
            assert (await client.post("/recommend", content=b"{}", headers={"Content-Type": media})).status_code == 200
        form = await client.post("/recommend", data={"user_id": "a", "context": '{"x": "\\ud800"}'})
        assert form.status_code == 415
        assert form.json()["error"] == ("Content-Type is 'application/x-www-form-urlencoded': send application/json")
        for media in ("text/plain", "multipart/form-data; boundary=x", "application/vnd.bentoml+pickle"):
            assert (await client.post("/recommend", content=b"{}", headers={"Content-Type": media})).status_code == 415
        assert "'missing'" in (await client.post("/cache/clear")).json()["error"]


async def test_the_key_comes_in_a_header_or_as_a_cookie_that_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, api_key=KEY) as client:
        for path in ("/livez", "/", "/console/app.js"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("/recommend")).status_code == 401
        assert (await client.get("/recommend", headers={"X-Api-Key": KEY})).status_code == 200
        assert (await client.get("/recommend", headers={"X-Api-Key": KEY + "x"})).status_code == 401
        assert security.session("wrong", secure=True) is None
        cookie = security.session(KEY, secure=True)
        assert cookie is not None
        assert {"HttpOnly", "SameSite=Strict", "Secure"} <= set(cookie.split("; "))
        good = cookie.split(";")[0]
        assert (await client.get("/recommend", headers={"Cookie": good})).status_code == 200
        assert (await client.get("/recommend", headers={"Cookie": good[:-1]})).status_code == 401
        assert (await client.get("/recommend", headers={"Cookie": 'freshet="'})).status_code == 401


async def test_a_client_beyond_its_rate_is_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, rate_limit_per_s=2) as client:
        codes = [(await client.get("/recommend")).status_code for _ in range(6)]
        assert codes[:4] == [200] * 4
        assert codes[-1] == 429
        assert (await client.get("/recommend")).headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200


def test_a_rate_below_one_in_two_seconds_lets_one_in_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 100.0
    monkeypatch.setattr(security, "monotonic", lambda: at)
    rate = security.Rate(0.25)
    assert [rate.take("a"), rate.take("a")] == [True, False]
    at += 3
    assert not rate.take("a")
    at += 1
    assert [rate.take("a"), rate.take("a")] == [True, False]


def test_a_client_that_waits_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 100.0
    monkeypatch.setattr(security, "monotonic", lambda: at)
    rate = security.Rate(2)
    assert [rate.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert rate.take("b")
    at += 1
    assert [rate.take("a") for _ in range(3)] == [True, True, False]


async def test_every_answer_is_counted_by_a_known_path_and_has_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted() -> list[float]:
        kinds = [("/recommend", "401"), ("other", "500")]
        name = "freshet_serve_request_seconds_count"
        return [REGISTRY.get_sample_value(name, {"path": p, "status": s}) or 0.0 for p, s in kinds]

    before = counted()
    async with guarded(monkeypatch, api_key=KEY) as client:
        refused = await client.get("/recommend")
        failed = await client.get("/fails", headers={"X-Api-Key": KEY})
    assert (refused.status_code, failed.status_code) == (401, 500)
    assert counted() == [n + 1 for n in before]
    assert refused.headers["content-security-policy"] == security.CSP
    assert "unsafe" not in security.CSP


@pytest.mark.parametrize(("answer_ms", "deadline_ms", "let_in"), [(10, 400, 4), (100, 400, 4), (10, 600, 6)])
async def test_who_would_wait_too_long_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, answer_ms: int, deadline_ms: int, let_in: int
) -> None:
    """Answers of 10 ms: four in 40 ms, a tenth of 400; a few are let in however slow answers are."""
    monkeypatch.setattr(security.pace, "mean_s", answer_ms / 1_000)
    monkeypatch.setattr(security.pace, "busy", lambda now: 0.9)
    async with guarded(monkeypatch, deadline_ms=deadline_ms - 10) as client:
        answers = await asyncio.gather(*(client.get("/trending") for _ in range(10)))
        assert sorted(a.status_code for a in answers) == [200] * let_in + [429] * (10 - let_in)
        assert {a.headers.get("retry-after") for a in answers if a.status_code == 429} == {"1"}
        assert (await client.get("/trending")).status_code == 200, "there is room again"
        waiting = [asyncio.create_task(client.get("/trending")) for _ in range(let_in)]
        await asyncio.sleep(0.01)
        assert (await client.get("/trending")).status_code == 429
        patient = asyncio.create_task(client.get("/trending", headers={"X-Deadline-Ms": "10000"}))
        assert (await client.get("/livez")).status_code == 200, "whoever watches is never turned away"
        assert {(await asked).status_code for asked in [*waiting, patient]} == {200}, "who may wait longer is let in"


async def test_a_burst_after_a_quiet_time_is_answered_as_far_as_its_deadline_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(security.pace, "mean_s", 0.1)
    monkeypatch.setattr(security.pace, "busy", lambda now: 0.4)
    async with guarded(monkeypatch, deadline_ms=650) as client:
        answers = await asyncio.gather(*(client.get("/trending") for _ in range(10)))
        assert sorted(a.status_code for a in answers) == [200] * 7 + [429] * 3


async def test_while_others_wait_some_answers_end_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch) as client:
        for dice, ended in ((0.0, [True, True, False]), (0.999, [False] * 3)):
            monkeypatch.setattr(security, "random", lambda dice=dice: dice)
            answers = await asyncio.gather(*(client.get("/trending") for _ in range(3)))
            assert sorted(a.headers.get("connection") == "close" for a in answers) == sorted(ended)
            assert "connection" not in (await client.get("/trending")).headers, "nobody waits"


async def test_a_question_brings_its_deadline_or_gets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, deadline_ms=60_000) as client:
        assert (await client.get("/trending")).text == "False"
        assert (await client.get("/trending", headers={"X-Deadline-Ms": "10"})).text == "True"
        for wrong in ("0", "soon", "-5", "60001", "000000001" + "9" * 30, "0" * 5_000 + "1"):
            refused = await client.get("/trending", headers={"X-Deadline-Ms": wrong})
            assert refused.status_code == 400
            assert "X-Deadline-Ms must be" in refused.json()["error"]

"""The guard before every endpoint: an optional key, bounds on size and rate, headers that browsers heed, and a count.

A program sends the key in `X-Api-Key`. A person gives it to the console once and gets a cookie that stands for it,
which scripts cannot read and other sites cannot send.
"""

import hashlib
import hmac
import json
from http.cookies import CookieError, SimpleCookie
from random import random
from time import monotonic, perf_counter

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos import deadline
from bentos.meters import BUCKETS
from bentos.pace import pace
from freshet.settings import get_settings

MAX_BODY = 512 * 1024
"""Bytes of a request: a thousand excluded ids of 256 bytes and some."""
OPEN = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Paths that need no key and have no limit: whoever restarts or watches the process must be able to ask."""
SHELL, FILES = frozenset({"/", "/api/session"}), "/console/"
"""The console's own page and files tell nothing, and are where a person gives the key."""
QUESTIONS = frozenset({"/recommend", "/recommend/batch", "/similar", "/trending"})
"""What costs computing: bounded in number, and with a deadline."""
SERVICE = QUESTIONS | {"/cache/clear"}
"""What takes JSON, and says so: browsers send forms, text and bodies of no type across origins without asking."""
COUNTED = frozenset(
    [*SERVICE, "/"] + [f"/api/{name}" for name in ("line", "users", "user", "item", "cover", "events", "session")]
)
"""Paths with a label of their own: labels made of what clients send would grow without bound."""
COOKIE = "freshet"
BURST_S = 2.0
"""A client that was silent may ask at once what it may ask in this time."""
CLIENTS = 10_000
FEW, WAIT, BUSY = 3, 1 / 10, 0.5
"""A question is refused when more than so many are before it and they will take all of its deadline; in a process that
was busy lately for more than this share of its time, more than this part of it. A burst is answered, a queue that stays
is kept short."""
MOVES = 256
"""A connection stays with the process that took it, so a few clients may all have the same one while another idles.
For each other question that waits, one of so many answers ends its connection: the next is taken by who is idle."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
]

REQUESTS = Histogram(
    "freshet_serve_request_seconds", "Requests by path and status.", ["path", "status"], buckets=BUCKETS
)


class Refused(Exception):
    """A request that goes no further: its status, the reason, and headers of the answer."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


class Rate:
    """Token buckets, one for each client. The client that was silent longest is forgotten first."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> bool:
        """Whether this client may ask now."""
        at, most = monotonic(), max(1.0, self._per_s * BURST_S)
        left, then = self._left.pop(client, (most, at))
        left = min(most, left + (at - then) * self._per_s)
        self._left[client] = (left - 1 if left >= 1 else left, at)
        if len(self._left) > CLIENTS:
            del self._left[next(iter(self._left))]
        return left >= 1


class Guard:
    """Pure ASGI: costs a few microseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        settings = get_settings()
        self._key = None if settings.api_key is None else settings.api_key.get_secret_value().encode()
        self._rate = None if settings.rate_limit_per_s is None else Rate(settings.rate_limit_per_s)
        self._deadline_ms = settings.deadline_ms
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 400, 401, 413, 415 or 429, or pass on; either way count it."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        start, status, path = perf_counter(), 500, scope["path"]

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if path != "/docs":  # BentoML's page has scripts within
                    message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
                if path in QUESTIONS and random() * MOVES < self._waiting - 1:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._admit(scope, path, headers)
            body = await _bounded(headers, receive)
            if path in QUESTIONS:
                await self._in_turn(scope, headers, body, guarded)
            else:
                await self.app(scope, body, guarded)
        except Refused as refusal:
            await _refuse(guarded, refusal)
        finally:
            label = path if path in COUNTED else "other"
            REQUESTS.labels(label, str(status)).observe(perf_counter() - start)

    async def _in_turn(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Pass a question on if its turn comes soon: a queue that only grows answers nobody in time."""
        try:
            may_take_s = deadline.begin(headers.get(b"x-deadline-ms"), self._deadline_ms)
        except deadline.BadDeadline as error:
            raise Refused(400, str(error)) from error
        may_wait_s = may_take_s * (WAIT if pace.busy(perf_counter()) > BUSY else 1)
        if self._waiting > FEW and self._waiting * pace.mean_s > may_wait_s:
            raise Refused(429, f"{self._waiting} questions are waiting: come back in a second", (b"retry-after", b"1"))
        self._waiting += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._waiting -= 1

    def _admit(self, scope: Scope, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is not None and path not in SHELL and not path.startswith(FILES):
            given = headers.get(b"x-api-key")
            good = _same(given, self._key) if given is not None else holds(headers.get(b"cookie", b""), self._key)
            if not good:
                raise Refused(401, "send the key of this deployment in X-Api-Key")
        client = (scope.get("client") or ("",))[0]
        if self._rate is not None and not self._rate.take(client):
            raise Refused(429, "too many requests from this address: wait a second", (b"retry-after", b"1"))
        if scope["method"] == "POST" and path in SERVICE:
            media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
            if media != "application/json":
                raise Refused(415, f"Content-Type is {media or 'missing'!r}: send application/json")


def session(given: str, secure: bool) -> str | None:
    """The cookie that stands for the key, as a header's value; None when `given` is not the key."""
    key = get_settings().api_key
    if key is None or not _same(given.encode("utf-8", "replace"), key.get_secret_value().encode()):
        return None
    stands = _stands_for(key.get_secret_value().encode())
    return f"{COOKIE}={stands}; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")


def holds(cookies: bytes, key: bytes) -> bool:
    """Whether a request's cookies hold the one that stands for the key."""
    try:
        morsel = SimpleCookie(cookies.decode("latin-1")).get(COOKIE)
    except CookieError:
        return False
    return morsel is not None and _same(morsel.value.encode("latin-1"), _stands_for(key).encode())


def _stands_for(key: bytes) -> str:
    return hmac.new(key, b"a session of the console", hashlib.sha256).hexdigest()


def _same(given: bytes, expected: bytes) -> bool:
    return hmac.compare_digest(given, expected)


async def _bounded(headers: dict[bytes, bytes], receive: Receive) -> Receive:
    """The body as it comes when its length is said; else read here, so that it is refused before anyone holds it."""
    too_large = Refused(413, f"the body is larger than {MAX_BODY} bytes")
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or int(length) > MAX_BODY:
            raise too_large
        return receive
    if b"transfer-encoding" not in headers:
        return receive
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise too_large
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay


async def _refuse(send: Send, refusal: Refused) -> None:
    body = json.dumps({"error": str(refusal)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

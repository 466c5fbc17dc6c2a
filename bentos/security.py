"""The guard before every endpoint: an optional key, a bound on bodies, and headers that browsers heed."""

import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freshet.settings import get_settings

MAX_BODY = 512 * 1024
"""Bytes of a request: a thousand excluded ids of 256 bytes and some."""
OPEN = frozenset({"/livez", "/readyz", "/healthz"})
"""Paths that need no key: whoever restarts the process must be able to ask."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
]


class Guard:
    """Pure ASGI: costs a few microseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        key = get_settings().api_key
        self._key = None if key is None else key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 401 or 413, or pass on with headers added."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-api-key", b"")
        if self._key is not None and scope["path"] not in OPEN and not hmac.compare_digest(given, self._key):
            await _refuse(send, 401, "send the key of this deployment in X-Api-Key")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            await _refuse(send, 413, f"the body is larger than {MAX_BODY} bytes")
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:  # chunked, so no length said so
                return {"type": "http.disconnect"}
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"] != "/docs":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await self.app(scope, bounded, guarded)


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Health probes: one question to a part over its own protocol.

Each returns normally when the part answers, else raises `OSError`.
"""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

PATIENCE_S = 2.0
"""A local part that needs longer for one answer is not well."""

Probe = Callable[[], Coroutine[Any, Any, None]]


async def _ask(host: str, port: int, question: bytes, wanted: int) -> bytes:
    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(question)
            await writer.drain()
            return await reader.readexactly(wanted)
        finally:
            writer.close()

    try:
        return await asyncio.wait_for(talk(), PATIENCE_S)
    except TimeoutError:
        raise OSError(f"no answer in {PATIENCE_S:.0f} s") from None
    except asyncio.IncompleteReadError:
        raise OSError("hung up") from None


def kafka(host: str, port: int) -> Probe:
    """Asks for ApiVersions (key 18, version 0), which a broker answers once it serves requests."""

    async def probe() -> None:
        answer = await _ask(host, port, struct.pack(">ihhih", 10, 18, 0, 1, -1), 10)
        if struct.unpack(">iih", answer)[1:] != (1, 0):
            raise OSError("answers, but not as a Kafka broker")

    return probe


def redis(host: str, port: int) -> Probe:
    """PING. A Redis that is still loading its file answers -LOADING and counts as not up yet."""

    async def probe() -> None:
        answer = await _ask(host, port, b"PING\r\n", 5)
        if answer != b"+PONG":
            raise OSError("still loading" if answer == b"-LOAD" else "answers, but not as a Redis")

    return probe


def http(host: str, port: int, path: str) -> Probe:
    """GET that must be answered with 200."""

    async def probe() -> None:
        question = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        status = (await _ask(host, port, question, 12))[9:12].decode(errors="replace")
        if status != "200":
            raise OSError(f"{path} answers {status}")

    return probe

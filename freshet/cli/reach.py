"""Asks, before a command starts its work, whether the servers that it needs answer."""

import asyncio
from os import environ
from urllib.parse import urlsplit

from freshet.cli.exits import Exit, Refusal
from freshet.settings import Settings, variable
from freshet.stack import probes
from freshet.stack.home import is_held
from freshet.stack.probes import Probe


def require(settings: Settings, *servers: str) -> None:
    """Raise a `Refusal` unless each of `servers` (kafka, redis, ingest, serve) answers.

    It is one that the environment names, or one of the stack that runs in this home. A stopped stack's old addresses
    are not asked: by now another stack may have them.
    """
    up = is_held(settings.home)
    for server in servers:
        address, setting, probe = _server(settings, server)
        if not up and variable(setting) not in environ:
            raise Refusal(
                Exit.DOWN,
                f"no stack runs in {settings.home}: "
                f"run `freshet up`, or set {variable(setting)} to where {server} runs",
            )
        try:
            asyncio.run(probe())
        except OSError as error:
            raise Refusal(
                Exit.DOWN,
                f"{server} does not answer at {address} ({error.strerror or error}): "
                f"run `freshet up`, or set {variable(setting)} to where it runs",
            ) from None


def _server(settings: Settings, name: str) -> tuple[str, str, Probe]:
    if name == "kafka":
        host, _, port = settings.kafka.split(",")[0].rpartition(":")
        return settings.kafka, "kafka", probes.kafka(host, int(port))
    if name == "redis":
        url = urlsplit(settings.redis_url)
        return settings.redis_url, "redis_url", probes.redis(url.hostname or "127.0.0.1", url.port or 6379)
    address = {"ingest": settings.ingest_url, "serve": settings.serve_url}[name]
    url, path = urlsplit(address), {"ingest": "/healthz", "serve": "/livez"}[name]
    return address, f"{name}_url", probes.http(url.hostname or "127.0.0.1", url.port or 80, path)

"""Asks, before a command starts its work, whether the servers that it needs answer."""

import asyncio
from os import environ

from freshet.cli.exits import Exit, Refusal
from freshet.settings import Settings, variable, without_password
from freshet.stack import probes
from freshet.stack.home import is_held
from freshet.stack.probes import PATIENCE_S

HEALTH = {"ingest": "/healthz", "serve": "/livez"}


def require(settings: Settings, *servers: str) -> None:
    """Raise a `Refusal` unless each of `servers` (kafka, redis, ingest, serve) answers.

    It is one that the environment names, or one of the stack that runs in this home. A stopped stack's old addresses
    are not asked: by now another stack may have them.
    """
    up = is_held(settings.home)
    for server in servers:
        setting = {"kafka": "kafka", "redis": "redis_url"}.get(server, f"{server}_url")
        if not up and variable(setting) not in environ:
            raise Refusal(
                Exit.DOWN,
                f"no stack runs in {settings.home}: "
                f"run `freshet up`, or set {variable(setting)} to where {server} runs",
            )
        address = getattr(settings, setting)
        try:
            _ask(server, address)
        except OSError as error:
            raise Refusal(
                Exit.DOWN,
                f"{server} does not answer at {without_password(address)} ({error.strerror or error}): "
                f"run `freshet up`, or set {variable(setting)} to where it runs",
            ) from None


def _ask(server: str, address: str) -> None:
    """By the clients that the work itself uses, so that passwords and TLS are tried, too. Raises `OSError`."""
    if server == "kafka":
        host, _, port = address.split(",")[0].rpartition(":")
        asyncio.run(probes.kafka(host, int(port))())
    elif server == "redis":
        from redis import Redis, RedisError

        try:
            with Redis.from_url(address, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S) as client:
                client.ping()
        except RedisError as error:
            raise OSError(str(error)) from error
    else:
        import httpx

        try:
            httpx.get(f"{address}{HEALTH[server]}", timeout=PATIENCE_S).raise_for_status()
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error

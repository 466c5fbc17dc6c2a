"""The parts of Freshet's local stack: what each runs, where it listens, what it needs.

Running them is left to `supervisor`.
"""

import sys
from collections.abc import Collection
from os import environ
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freshet.settings import Settings, SettingsError, variable
from freshet.stack import kafka, probes, redis
from freshet.stack.parts import Part
from freshet.stack.ports import Claims

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds our packages: BentoML and Feast look for them there."""
LOCAL = ("127.0.0.1", "localhost")
PARTS = ("kafka", "redis", "topics", "features", "worker", "sink-online", "sink-archive", "ingest", "serve")
"""All parts, in the order in which they are shown."""
QUIET = {"BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Nothing on this machine reports to anybody."""


def chosen(only: Collection[str]) -> list[str]:
    """The names in `only`, or all, in order. Raises `SettingsError` for a name that there is not."""
    unknown = sorted(set(only) - set(PARTS))
    if unknown:
        raise SettingsError(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    return [name for name in PARTS if not only or name in only]


def place(settings: Settings, names: Collection[str], claims: Claims) -> Settings:
    """The settings with a free port for each of the parts `names`: the one that they say if it is free, else the next.

    The ports are in `claims` then. Raises `SettingsError` where the environment insists on a port that is taken, or on
    another machine.
    """

    def port(field: str, wanted: int, run: int = 1) -> int:
        found = claims.choose(wanted, run=run)
        if found != wanted and variable(field) in environ:
            raise SettingsError(
                f"{variable(field)} names port {wanted}, which is taken on this machine; unset it, or name another"
            )
        return found

    changes: dict[str, Any] = {}
    if "kafka" in names:  # and the next port, for its controller
        changes["kafka"] = f"127.0.0.1:{port('kafka', _local('kafka', *_endpoint(settings.kafka)), run=2)}"
    if "redis" in names:
        url = urlsplit(settings.redis_url)
        found = port("redis_url", _local("redis_url", url.hostname, url.port or 6379))
        changes["redis_url"] = f"redis://127.0.0.1:{found}{url.path or '/0'}"
    for part in ("ingest", "serve"):
        if part in names:
            changes[f"{part}_port"] = port(f"{part}_port", getattr(settings, f"{part}_port"))
            changes[f"{part}_url"] = f"http://{_reachable(getattr(settings, f'{part}_host'))}:{changes[f'{part}_port']}"
    if "worker" in names:
        changes["worker_metrics_port"] = port("worker_metrics_port", settings.worker_metrics_port)
    if "sink-online" in names or "sink-archive" in names:  # each has its own
        changes["sink_metrics_port"] = port("sink_metrics_port", settings.sink_metrics_port, run=2)
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings(**given | changes)


def parts(settings: Settings, names: Collection[str]) -> list[Part]:
    """The parts `names`, as they run with `settings`, whose ports are placed."""
    made = {
        "kafka": _kafka(settings),
        "redis": _redis(settings),
        "topics": _setup(settings, "topics", needs=("kafka",)),
        "features": _setup(settings, "features", needs=("redis",)),
        "worker": _part(
            settings,
            "worker",
            [_script("faust"), "-A", "streams.app", "worker", "-l", settings.log_level.lower(), "--without-web"],
            metrics=settings.worker_metrics_port,
        ),
        "sink-online": _sink(settings, "online", settings.sink_metrics_port),
        "sink-archive": _sink(settings, "archive", settings.sink_metrics_port + 1),
        "ingest": _part(
            settings,
            "ingest",
            [_script("uvicorn"), *_uvicorn(settings).split()],
            address=settings.ingest_url,
            port=settings.ingest_port,
            probe=probes.http(_reachable(settings.ingest_host), settings.ingest_port, "/healthz"),
        ),
        "serve": _part(
            settings,
            "serve",
            [_script("bentoml"), *_bentoml(settings).split(), "--working-dir", str(ROOT)],
            address=settings.serve_url,
            port=settings.serve_port,
            probe=probes.http(_reachable(settings.serve_host), settings.serve_port, "/readyz"),
            env={"BENTOML_HOME": str(settings.home / "bentoml")},
        ),
    }
    return [made[name] for name in names]


def _uvicorn(settings: Settings) -> str:
    where = f"--host {settings.ingest_host} --port {settings.ingest_port}"
    return f"--factory streams.ingest:create_app {where} --no-access-log --log-level {settings.log_level.lower()}"


def _bentoml(settings: Settings) -> str:
    return f"serve bentos.service:Recommender --host {settings.serve_host} --port {settings.serve_port}"


def _kafka(settings: Settings) -> Part:
    host, port = _endpoint(settings.kafka)

    def command() -> list[str]:
        return kafka.prepare(
            settings.home / "kafka",
            settings.cache_dir,
            port=port,
            controller_port=_controller_port(settings),
            heap_mb=settings.kafka_heap_mb,
        )

    return Part(
        "kafka", command, _log(settings, "kafka"), address=settings.kafka, port=port, probe=probes.kafka(host, port)
    )


def _redis(settings: Settings) -> Part:
    url = urlsplit(settings.redis_url)
    host, port = url.hostname or LOCAL[0], url.port or 6379
    return Part(
        "redis",
        lambda: redis.prepare(settings.home / "redis", port=port),
        _log(settings, "redis"),
        address=settings.redis_url,
        port=port,
        probe=probes.redis(host, port),
    )


def _setup(settings: Settings, step: str, needs: tuple[str, ...]) -> Part:
    return _part(settings, step, [sys.executable, "-m", "freshet.stack.setup", step], needs=needs, once=True)


def _sink(settings: Settings, which: str, metrics: int) -> Part:
    return _part(
        settings,
        f"sink-{which}",
        [sys.executable, "-m", "streams.sinks", which],
        metrics=metrics,
        env={variable("sink_metrics_port"): str(metrics)},
    )


def _part(
    settings: Settings,
    name: str,
    command: list[str],
    *,
    metrics: int | None = None,
    needs: tuple[str, ...] = ("kafka", "redis", "topics"),
    **options: Any,
) -> Part:
    """A part of our own. One that has nothing but metrics is asked for those."""
    if metrics is not None:
        options |= {
            "address": f"http://127.0.0.1:{metrics}/metrics",
            "port": metrics,
            "probe": probes.http("127.0.0.1", metrics, "/metrics"),
        }
    return Part(name, lambda: command, _log(settings, name), needs=needs, **options)


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"


def _script(name: str) -> str:
    """A program of our own environment, whether or not that is activated."""
    return str(Path(sys.executable).parent / name)


def _endpoint(bootstrap: str) -> tuple[str, int]:
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    return host, int(port)


def _controller_port(settings: Settings) -> int:
    return _endpoint(settings.kafka)[1] + 1


def _local(field: str, host: str | None, port: int) -> int:
    if host not in LOCAL:
        raise SettingsError(
            f"{variable(field)} is on {host}, not on this machine: leave that part out with --only, or unset it"
        )
    return port


def _reachable(host: str) -> str:
    return LOCAL[0] if host in ("0.0.0.0", "::") else host

"""The settings: every value that a deployment may choose, in one place, with its default and its meaning.

A value comes from the first of: an argument, an environment variable `FRESHET_<NAME>`, the file `stack.env` that
`freshet up` leaves in the home folder, the default. Everything in Freshet takes a `Settings` as an argument or calls
`get_settings()` once, where its process begins. This module imports nothing else of ours, so anything may import it.
"""

import re
from functools import lru_cache
from os import environ
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ENV_PREFIX = "FRESHET_"
ENV_FILE = "stack.env"
KEY_FILE = "bundle.key"
AUTO = "auto"
DEDUP_STEP = 4096
"""The engine remembers event ids in blocks of this many, so the window is a multiple of it."""


class SettingsError(ValueError):
    """A setting that is missing or wrong for what was asked. Its text says which, and what to do."""


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value else value


Folder = Annotated[Path, AfterValidator(_absolute)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _under_home(name: str) -> Any:
    """A folder whose default lies in `home`, wherever that is."""
    return lambda data: data["home"] / name


def _sqlite_under_home(name: str) -> Any:
    return lambda data: f"sqlite:///{data['home'] / name}"


def _local_bundle_key(data: dict[str, Any]) -> SecretStr:
    file = data["home"] / KEY_FILE
    return SecretStr(file.read_text().strip() if file.exists() else "")


class Settings(BaseSettings):
    """All settings. Paths are absolute, durations and sizes say their unit in the name."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", validate_default=True)

    home: Folder = Field(
        Path(".freshet"), description="Folder of everything that this deployment keeps on this machine."
    )
    cache_dir: Folder = Field(
        Path("~/.cache/freshet"), description="Folder of downloads that many homes may share (Kafka's jars)."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="How much the processes write to their logs."
    )

    kafka: str = Field(
        "127.0.0.1:9192",
        description="Bootstrap servers of Kafka, `host:port`, comma-separated.",
        pattern=r"^[^:,\s]+:\d+(,[^:,\s]+:\d+)*$",
    )
    topic_prefix: str = Field(
        "",
        description="Put before every topic name, so that several deployments can share a cluster.",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
    )
    partitions: int = Field(
        4, ge=1, le=1024, description="Partitions of each topic. More than this many workers cannot share the load."
    )
    replication: int = Field(1, ge=1, le=16, description="Replication factor of each topic. Use 3 on a cluster.")
    app_id: str = Field(
        "freshet",
        description="Name of the stream application: its consumer groups and transactional ids begin with it.",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
    )
    instance: str = Field(
        AUTO,
        description="Name of this worker in its consumer group (static membership). "
        "A restart under the same name takes its partitions back at once, and finds its checkpoints. "
        "`auto`: that of a worker of this `home` that does not run, or else a new one.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    )
    standby: bool = Field(
        False,
        description="Whether a worker keeps checkpoints of the partitions that others own, too, so that it takes one "
        "over without reading all of its changelog.",
    )
    flink_env: Folder = Field(
        Path(".venv-flink"), description="Python environment with PyFlink, for `freshet flink`. `make flink` makes it."
    )
    flink_parallelism: int = Field(
        1, ge=1, le=1024, description="Subtasks of each step of the Flink job. More than partitions have nothing to do."
    )
    flink_checkpoint_ms: int = Field(
        1_000,
        ge=50,
        le=600_000,
        description="How often the Flink job takes a checkpoint, and commits what it wrote since the last one.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6479/0", description="Redis of the online store.", pattern=r"^(redis|rediss|unix)://"
    )

    mlflow_uri: str = Field(
        default_factory=_sqlite_under_home("mlflow.db"),
        description="Tracking store and model registry of MLflow. Default: SQLite under `home`.",
    )
    feast_registry: str = Field(
        default_factory=_sqlite_under_home("feast.db"),
        description="Feast's registry, an SQLAlchemy URL. Default: SQLite under `home`.",
    )
    archive_dir: Folder = Field(
        default_factory=_under_home("archive"), description="Archive of the raw topics, Parquet. Default: under `home`."
    )
    offline_dir: Folder = Field(
        default_factory=_under_home("offline"),
        description="Offline store that Feast reads, Parquet. Default: under `home`.",
    )
    bundle_cache_dir: Folder = Field(
        default_factory=_under_home("bundles"), description="Where serving unpacks bundles. Default: under `home`."
    )
    reports_dir: Folder = Field(
        default_factory=_under_home("reports"),
        description="Where reports are written (drift, evaluation). Default: under `home`.",
    )

    ingest_host: str = Field("127.0.0.1", description="Address on which ingest listens.")
    ingest_port: Port = Field(8010, description="Port on which ingest listens.")
    ingest_url: str = Field(
        default_factory=lambda data: f"http://{data['ingest_host']}:{data['ingest_port']}",
        description="Where clients reach ingest.",
        pattern=r"^https?://",
    )
    serve_host: str = Field("127.0.0.1", description="Address on which serving listens.")
    serve_port: Port = Field(3000, description="Port on which serving listens.")
    serve_workers: int = Field(1, ge=1, le=64, description="Processes that answer on that port: one a core.")
    serve_url: str = Field(
        default_factory=lambda data: f"http://{data['serve_host']}:{data['serve_port']}",
        description="Where clients reach serving and the console.",
        pattern=r"^https?://",
    )
    metrics_bind: str = Field(
        "127.0.0.1", description="Address on which the worker, the sinks and the drift check offer their metrics."
    )
    worker_metrics_host: str = Field("127.0.0.1", description="Host on which the console finds a worker's metrics.")
    worker_metrics_port: Port = Field(9464, description="Port of the worker's Prometheus metrics.")
    sink_metrics_host: str = Field(
        "127.0.0.1", description="Host on which the console finds the online sink's metrics."
    )
    sink_metrics_port: Port = Field(
        9465, description="Port of a sink's Prometheus metrics. Each sink process needs its own."
    )

    commit_interval_ms: int = Field(
        150,
        ge=20,
        le=60_000,
        description="How often the worker commits a partition of users. Shorter is fresher and costs more CPU.",
    )
    item_commit_interval_ms: int = Field(
        2_000,
        ge=20,
        le=60_000,
        description="The same for items. Many events meet the same item, so a longer one writes far fewer states; what "
        "is read of them changes when a tile of five minutes closes.",
    )
    state_memory_mb: int = Field(
        940,
        ge=1,
        description="Memory for the states of a worker, in MiB; it takes 200 to 500 MB beside. States not used lately "
        "that have no room are kept on disk, beside the checkpoint; each of these takes 110 bytes of memory more.",
    )
    checkpoint_rows: int = Field(
        50_000,
        ge=1,
        description="A partition's checkpoint grows with each commit. It is rewritten at the latest when it holds "
        "three old records for every four rows, this many more counted. Less: quicker restarts, more writes.",
    )
    dedup_window: int = Field(
        65_536,
        ge=DEDUP_STEP,
        description="Applied events, of a partition, whose ids are remembered to find duplicates. "
        f"A multiple of {DEDUP_STEP}.",
    )
    future_tolerance_s: int = Field(
        60, ge=0, description="How far an event's own clock may run ahead of its arrival before it is refused."
    )
    max_event_bytes: int = Field(65_536, ge=1024, description="Largest event that ingest accepts.")
    max_batch_events: int = Field(10_000, ge=1, description="Most events that ingest accepts in one request.")

    api_key: Annotated[SecretStr | None, BeforeValidator(_none_if_blank)] = Field(
        None, description="Key that clients must send in `X-Api-Key`. Unset: no key is asked for."
    )
    rate_limit_per_s: Annotated[float | None, BeforeValidator(_none_if_blank)] = Field(
        None, gt=0, description="Most requests a second that serving takes from one address. Unset: no limit."
    )
    deadline_ms: int = Field(
        150,
        ge=1,
        le=60_000,
        description="An answer that takes longer goes out without its last stages. A request may say `X-Deadline-Ms`.",
    )
    cache_ttl_s: float = Field(
        0.0,
        ge=0,
        le=3_600,
        description="So long an answer is kept in Redis, some 15 kB each, for whoever asks the same again while "
        "nothing new is known of the user. 0 keeps none.",
    )
    explore_share: float = Field(
        0.005,
        ge=0,
        le=0.5,
        description="Part of an answer's places that go to items of which little is known; see "
        "docs/explanation/cascade.md. 0 explores nothing.",
    )
    rules_file: Annotated[Path | None, BeforeValidator(_none_if_blank)] = Field(
        None,
        description="TOML file of house rules (hide, boost, pin, cap, exposure) for serving; see docs/how-to/rules.md.",
    )
    bundle_key: SecretStr = Field(
        default_factory=_local_bundle_key,
        description="Key that signs bundles and checks their signature. "
        f"Default: the file `{KEY_FILE}` under `home`, which `freshet up` makes.",
    )
    model_name: str = Field("freshet", description="Name of the registered model in MLflow.", min_length=1)

    kafka_heap_mb: int = Field(512, ge=256, description="Java heap of the local stack's Kafka.")

    @field_validator("dedup_window")
    @classmethod
    def _whole_blocks(cls, value: int) -> int:
        if value % DEDUP_STEP:
            raise ValueError(f"must be a multiple of {DEDUP_STEP}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The file lies in `home`, so `home` itself comes from an argument, the environment or the default only."""
        home = init_settings().get("home") or environ.get(f"{ENV_PREFIX}HOME") or cls.model_fields["home"].default
        return (
            init_settings,
            env_settings,
            DotEnvSettingsSource(settings_cls, env_file=Path(home).expanduser() / ENV_FILE),
        )

    def topic(self, name: str) -> str:
        """The name in Kafka of one of our topics, e.g. `events`."""
        return self.topic_prefix + name

    def signing_key(self) -> bytes:
        """The bytes of `bundle_key`. Raises `SettingsError` when there is none: an unsigned bundle is never made."""
        key = self.bundle_key.get_secret_value()
        if not key:
            raise SettingsError(
                f"no bundle key: run `freshet up` once, which makes {self.home / KEY_FILE}, "
                f"or set {ENV_PREFIX}BUNDLE_KEY"
            )
        return key.encode()

    def as_env(self) -> dict[str, str]:
        """Every setting as a variable, secrets too: what a child process needs to see the same settings."""
        return {variable(name): text for name, text in self.plain().items() if text is not None}

    def plain(self) -> dict[str, str | None]:
        """Every setting by its name, as text, with secrets revealed. None where unset."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else None if value is None else str(value)
            for name, value in values.items()
        }


def without_password(text: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(://[^/@]*?:)[^@]*@", r"\1***@", text)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once. Call it where the process begins and hand the result on."""
    return Settings()

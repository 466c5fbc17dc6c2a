"""Feast's Redis online store with a compare-and-set: same keys, same fields, same readers, but no stale write.

The stock store reads timestamps and writes in two steps, so of two writers the stale one may win. Here each row carries
a rank, and Redis itself compares it. Used by Feast only (`materialize`, `write_to_online_store`, reads); the online
sink makes the same call through `feature_repo.compare_and_set` without importing Feast.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _mmh3, _redis_key, _redis_key_prefix
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType, _versioned_fv_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from pydantic import field_validator
from redis.connection import parse_url

from feature_repo import compare_and_set
from feature_repo.layout import VERSION, StoredRow, pack_time, rank, rank_field, time_field

Progress = Callable[[int], Any] | None
Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""(key, values, event timestamp, created timestamp), as Feast hands them over."""
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class VersionedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`connection_string` is a Redis URL, or Feast's own form."""

    type: Literal["feature_repo.redis_store.VersionedRedisOnlineStore"] = (
        "feature_repo.redis_store.VersionedRedisOnlineStore"  # type: ignore[assignment]
    )

    @field_validator("connection_string")
    @classmethod
    def _was_filled_in(cls, value: str) -> str:
        """Feast leaves a variable that is not set as it stands. This runs before any part of the file is used."""
        if "${" in value:
            raise ValueError(f'the environment has no {value.strip("${}")}: run `eval "$(freshet env)"` in this shell')
        return value


class VersionedRedisOnlineStore(RedisOnlineStore):
    """Ranks the rows of our views by version and then by time; those of a view without a version by time alone."""

    @staticmethod
    def _parse_connection_string(connection_string: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Redis URLs beside Feast's `host:port,name=value`."""
        if "://" not in connection_string:
            nodes, params = RedisOnlineStore._parse_connection_string(connection_string)
            return nodes, params
        parts: dict[str, Any] = dict(parse_url(connection_string))  # type: ignore[no-untyped-call]
        if connection_string.startswith("rediss:"):
            parts["ssl"] = True
        elif connection_string.startswith("unix:"):
            parts["unix_socket_path"] = parts.pop("path")
        parts.pop("connection_class", None)
        node = {"host": parts.pop("host", "localhost"), "port": parts.pop("port", 6379)}
        return [node], parts

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: Sequence[Row], progress: Progress
    ) -> None:
        """Write rows; stale ones are left out, as Feast's contract allows."""
        view, store = _versioned_fv_name(table, config), config.online_store
        by_shape: dict[tuple[str, ...], list[StoredRow]] = {}
        for key, values, at, _ in data:
            micros = (_aware(at) - _EPOCH) // _MICROSECOND
            version = next((values[name].int64_val for name in VERSION.values() if name in values), -1)
            by_shape.setdefault(tuple(values), []).append(
                StoredRow(
                    _redis_key(config.project, key, config.entity_key_serialization_version),
                    rank(version, micros),
                    (time_field(view), *(_mmh3(f"{view}:{name}") for name in values)),
                    (pack_time(micros), *(value.SerializeToString() for value in values.values())),
                )
            )
        for rows in by_shape.values():
            compare_and_set.write(
                self._get_client(store),
                view,
                rows,
                ttl_s=store.key_ttl_seconds or 0,
                one_key_a_call=store.redis_type == RedisType.redis_cluster,
            )
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: Sequence[Row], progress: Progress
    ) -> None:
        """The same, off the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Feast's own, and the ranks: a view that comes back would else refuse its rows."""
        super().delete_table(config, table)
        client = self._get_client(config.online_store)
        field = rank_field(_versioned_fv_name(table, config))
        pattern = b"".join([_redis_key_prefix(table.join_keys), b"*", config.project.encode()])
        with client.pipeline(transaction=False) as pipe:
            for key in client.scan_iter(pattern):
                pipe.hdel(key, field)
            pipe.execute()


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)

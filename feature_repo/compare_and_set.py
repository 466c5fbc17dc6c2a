"""Writes rows into Redis so that a row's rank never goes down, whatever order writers come in.

One Lua call compares the ranks and sets the fields, so no writer can slip in between. Used by the online sink and by
Feast's own `materialize` through `feature_repo.redis_store`. What a row looks like is left to `feature_repo.layout`.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from feature_repo.layout import StoredRow, rank_field

CHUNK = 100
"""Rows of one call. Redis serves nobody else during a call: 100 rows take it .6 ms."""

SCRIPT = """
-- KEYS: hashes. ARGV: the rank's field, seconds to live (0: for ever), how many other fields, their names;
-- then for each row its rank and its values.
-- Ranks are compared as four words: Lua numbers are doubles, and strings compare by the server's locale.
local field, ttl, width = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local written, at, row = 0, 4 + width, {}
for i = 1, width do row[2 * i - 1] = ARGV[3 + i] end
for i, key in ipairs(KEYS) do
  local new, old, fresh = ARGV[at], redis.call('HGET', key, field), true
  if old then
    local a, b, c, d = struct.unpack('>I4I4I4I4', new)
    local e, f, g, h = struct.unpack('>I4I4I4I4', old)
    if a ~= e then fresh = a > e elseif b ~= f then fresh = b > f
    elseif c ~= g then fresh = c > g else fresh = d > h end
  end
  if fresh then
    for j = 1, width do row[2 * j] = ARGV[at + j] end
    redis.call('HSET', key, field, new, unpack(row))
    if ttl > 0 then redis.call('EXPIRE', key, ttl) end
    written = written + 1
  end
  at = at + 1 + width
end
return written
"""
_SHA = sha1(SCRIPT.encode()).hexdigest()


class _Client(Protocol):
    """What is used of redis-py's `Redis` and `RedisCluster`."""

    connection_pool: Any

    def pipeline(self, transaction: bool = ...) -> Any: ...
    def script_load(self, script: str) -> Any: ...


def write(
    client: _Client, view: str, rows: Sequence[StoredRow], *, ttl_s: int = 0, one_key_a_call: bool = False
) -> int:
    """Write rows of one view; all have the same names. Returns how many were written; the others were stale.

    All calls go in one round trip, and Redis works on one while the next is packed. `one_key_a_call` is for Redis
    Cluster, whose scripts may touch one slot only. Raises redis-py's errors; then some of the rows may be written, and
    writing all again does no harm.
    """
    if not rows:
        return 0
    run, size = (_run_on_cluster, 1) if one_key_a_call else (_run, CHUNK)

    def calls() -> Iterable[list[bytes | int]]:
        return (_arguments(view, rows[at : at + size], ttl_s) for at in range(0, len(rows), size))

    try:
        return run(client, calls())
    except NoScriptError:  # Redis was restarted or its scripts flushed
        client.script_load(SCRIPT)
        return run(client, calls())


def _arguments(view: str, rows: Sequence[StoredRow], ttl_s: int) -> list[bytes | int]:
    names = rows[0].names
    arguments: list[bytes | int] = [len(rows), *(row.key for row in rows), rank_field(view), ttl_s, len(names), *names]
    for row in rows:
        arguments.append(row.rank)
        arguments += row.values
    return arguments


def _run(client: _Client, calls: Iterable[list[bytes | int]]) -> int:
    connection = client.connection_pool.get_connection()
    try:
        sent = 0
        for arguments in calls:
            connection.send_command("EVALSHA", _SHA, *arguments)
            sent += 1
        return sum(connection.read_response() for _ in range(sent))
    except BaseException:
        connection.disconnect()  # else the next caller would read the answers that are left
        raise
    finally:
        client.connection_pool.release(connection)


def _run_on_cluster(client: _Client, calls: Iterable[list[bytes | int]]) -> int:
    with client.pipeline(transaction=False) as pipe:
        for arguments in calls:
            pipe.evalsha(_SHA, *arguments)
        return sum(pipe.execute())

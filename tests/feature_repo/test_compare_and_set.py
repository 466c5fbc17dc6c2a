"""The newest row wins, whoever writes it and when."""

import random
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis as Client

from feature_repo import compare_and_set, layout
from feature_repo.features import user
from streams.profiles import header
from tests.conftest import Redis

VIEW = layout.VIEWS["user"]


def row(key: str, version: int, at: int = 1) -> layout.StoredRow:
    state = user.new()
    state.version, state.event_time = version, at
    data = user.encode(state)
    head = header(data)
    assert head is not None
    return layout.stored("user", layout.entity_key("user_id", key), data, head)


@pytest.mark.redis
def test_racing_writers_never_leave_a_stale_row(redis_server: Redis) -> None:
    with Client.from_url(redis_server.url) as client:
        client.flushall()
    versions = [(f"u{n}", version) for n in range(500) for version in range(8)]

    def write_all(seed: int) -> None:
        shuffled = random.Random(seed).sample(versions, len(versions))
        with Client.from_url(redis_server.url) as own:
            for at in range(0, len(shuffled), 100):
                compare_and_set.write(own, VIEW, [row(key, version) for key, version in shuffled[at : at + 100]])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_all, range(4)))
    with Client.from_url(redis_server.url) as client:
        for n in range(500):
            best = row(f"u{n}", 7)
            expected = dict(zip(best.names, best.values, strict=True)) | {layout.rank_field(VIEW): best.rank}
            assert client.hgetall(best.key) == expected


@pytest.mark.redis
@pytest.mark.parametrize("one_key_a_call", [False, True])
def test_equal_and_older_rows_are_left_out(redis_server: Redis, one_key_a_call: bool) -> None:
    with Client.from_url(redis_server.url) as client:
        client.flushall()
        client.script_flush()

        def write(*rows: layout.StoredRow) -> int:
            return compare_and_set.write(client, VIEW, rows, one_key_a_call=one_key_a_call)

        assert write(row("a", 3), row("b", 3)) == 2
        assert write(row("a", 3), row("b", 4)) == 1
        assert write(row("a", 2, at=9), row("b", 4, at=2)) == 1  # a higher time does not make up for a lower version
        big = 1 << 60
        assert write(row("a", big), row("b", big + 1)) == 2
        assert write(row("a", big + 1), row("b", big)) == 1  # exact beyond what a double can hold
        client.script_flush()
        assert write(row("a", big + 2)) == 1
        stored = client.hget(layout.entity_key("user_id", "a"), layout.rank_field(VIEW))  # type: ignore[arg-type]
        assert struct.unpack(">QQ", stored)[0] == big + 3  # type: ignore[arg-type]

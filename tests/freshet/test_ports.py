"""Ports: a stable choice, and the next free one when that is taken. With real sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshet.settings import Settings, SettingsError
from freshet.stack.plan import place
from freshet.stack.ports import Claims, NoFreePort, choose, is_free, listens


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(busy: int) -> None:
    assert not is_free(busy)
    assert choose(busy) > busy


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    free = choose(31_000)
    assert choose(free) == free
    assert choose(free, taken={free}) > free


def test_a_run_of_ports_is_free_as_a_whole(busy: int) -> None:
    assert choose(busy - 1, run=2) > busy


def test_no_free_port_is_said_with_the_range(busy: int) -> None:
    with pytest.raises(NoFreePort, match="no free port from 31000"):
        choose(31_000, taken=range(31_000, 32_000))


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Claims]:
    with Claims(tmp_path) as made:
        yield made


def test_two_that_choose_at_the_same_moment_do_not_meet(claims: Claims, tmp_path: Path) -> None:
    wanted = choose(31_200)
    with Claims(tmp_path) as others:
        first, second = claims.choose(wanted, run=2), others.choose(wanted, run=2)
        assert first == wanted
        assert second >= first + 2
        assert claims.choose(wanted) not in {first, first + 1, second, second + 1}
    assert claims.choose(second) == second  # let go of


def test_whose_port_it_is(busy: int) -> None:
    assert listens(os.getpid(), busy)
    assert not listens(os.getpid(), choose(busy + 1))
    assert not listens(1, busy)


def test_the_stack_moves_out_of_the_way(busy: int, claims: Claims) -> None:
    placed = place(Settings(kafka=f"127.0.0.1:{busy}"), ["kafka"], claims)
    assert placed.kafka != f"127.0.0.1:{busy}"


def test_addresses_follow_the_ports(busy: int, claims: Claims) -> None:
    placed = place(Settings(serve_port=busy, ingest_port=busy), ["ingest", "serve"], claims)
    assert len({placed.ingest_port, placed.serve_port, busy}) == 3
    assert placed.serve_url == f"http://127.0.0.1:{placed.serve_port}"


def test_a_port_that_the_environment_insists_on_is_not_changed_silently(
    busy: int, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHET_KAFKA", f"127.0.0.1:{busy}")
    with pytest.raises(SettingsError, match=f"FRESHET_KAFKA names port {busy}"):
        place(Settings(), ["kafka"], claims)


def test_a_server_on_another_machine_is_not_started_here(claims: Claims) -> None:
    with pytest.raises(SettingsError, match="broker"):
        place(Settings(kafka="broker:9092"), ["kafka"], claims)
    assert place(Settings(kafka="broker:9092"), ["ingest"], claims).kafka == "broker:9092"

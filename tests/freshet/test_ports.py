"""Ports: a stable choice, and the next free one when that is taken. With real sockets."""

import socket

import pytest

from freshet.settings import Settings, SettingsError
from freshet.stack.plan import place
from freshet.stack.ports import NoFreePort, choose, is_free


@pytest.fixture
def busy():
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


def test_the_stack_moves_out_of_the_way(busy: int) -> None:
    placed = place(Settings(kafka=f"127.0.0.1:{busy}"), ["kafka"])
    assert placed.kafka != f"127.0.0.1:{busy}"


def test_addresses_follow_the_ports(busy: int) -> None:
    placed = place(Settings(serve_port=busy, ingest_port=busy), ["ingest", "serve"])
    assert len({placed.ingest_port, placed.serve_port, busy}) == 3
    assert placed.serve_url == f"http://127.0.0.1:{placed.serve_port}"


def test_a_port_that_the_environment_insists_on_is_not_changed_silently(
    busy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHET_KAFKA", f"127.0.0.1:{busy}")
    with pytest.raises(SettingsError, match=f"FRESHET_KAFKA names port {busy}"):
        place(Settings(), ["kafka"])


def test_a_server_on_another_machine_is_not_started_here() -> None:
    with pytest.raises(SettingsError, match="broker"):
        place(Settings(kafka="broker:9092"), ["kafka"])
    assert place(Settings(kafka="broker:9092"), ["ingest"]).kafka == "broker:9092"

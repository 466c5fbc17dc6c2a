"""Ports on this machine: which are free, and a stable choice among them. Who listens on them is left to `plan`."""

import socket
from collections.abc import Collection

SEARCHED = 200
"""How many ports above the preferred one are tried before giving up."""


class NoFreePort(OSError):
    """Every port that was tried is taken."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `host:port` now. Sockets in TIME_WAIT do not count, as no server minds them."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(preferred: int, taken: Collection[int] = (), *, run: int = 1) -> int:
    """The first port from `preferred` on that begins `run` free ports, none in `taken`. Raises `NoFreePort`."""
    for port in range(preferred, min(preferred + SEARCHED, 65_536 - run)):
        if all(each not in taken and is_free(each) for each in range(port, port + run)):
            return port
    raise NoFreePort(f"no free port from {preferred} to {preferred + SEARCHED}")

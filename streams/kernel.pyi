from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from streams.aggregates import Aggregate
from streams.events import Event

T = TypeVar("T")
Reached = Callable[[str], list[tuple[int, Aggregate, float | None]]]
Feature = tuple[int, str, list[tuple[int, int]], list[tuple[int, int, int]], str, int, int, bool, tuple[Any, ...]]

class Kernel:
    def __init__(
        self,
        profile: int,
        features: list[Feature],
        reached: Reached,
        tile: int,
        open_tiles: int,
    ) -> None: ...
    def advance(self, row: bytes | None, events: Iterable[Event], version: int) -> bytes: ...
    def read(self, row: bytes, at: int, before: int) -> tuple[list[Any], int]: ...
    def users(self, partition: int, partitions: int, tolerance: int, lateness: int) -> Users: ...
    def items(self) -> Items: ...

def pack(rows: list[tuple[bytes | None, bytes | None]], most: int) -> list[tuple[bytearray, int]]: ...
def fill(
    data: bytes,
    at: int,
    end: int,
    held: dict[bytes, bytes],
    spilled: dict[bytes, int],
    own: dict[bytes, bytes | None],
    overhead: int,
) -> int: ...
def stored(
    kind: type[T], names: tuple[bytes, ...], head: bytes, tail: bytes, rows: list[tuple[bytes, bytes]]
) -> tuple[list[T], list[int]]: ...
def partition_of(key: bytes, partitions: int) -> int: ...

class Outbox:
    def take(self, source: int, passed: dict[int, int], most: int) -> list[tuple[int, bytes]]: ...

class Users:
    outbox: Outbox
    def fold(self, fold: Any, records: list[tuple[int, bytes | None, bytes | None]], most: int) -> None: ...

class Items:
    def fold(self, fold: Any, records: list[tuple[int, bytes | None, bytes | None]], most: int) -> None: ...

"""The rows of one partition by their keys, in memory. Where else they are kept is left to whoever runs the fold."""

from collections.abc import Collection, Container, Iterable, Iterator

from streams.fold.records import Own, State
from streams.profiles import is_meta_key

OVERHEAD = 150
"""Bytes of memory that a row takes beside its own in a dictionary: its key, two objects, its share of the table."""


class PlainHeap:
    """Rows by their keys, and how many bytes of memory they take."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._rows))

    def rows(self, keys: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        """These keys with their rows. Raises `KeyError`."""
        return [(key, self._rows[key]) for key in keys]

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def put(self, key: bytes, row: bytes) -> None:
        before = self._rows.get(key)
        self.size += len(row) + OVERHEAD if before is None else len(row) - len(before)
        self._rows[key] = row

    def drop(self, keys: Collection[bytes]) -> None:
        for key in keys:
            row = self._rows.pop(key, None)
            if row is not None:
                self.size -= len(row) + OVERHEAD

    def tidy(self) -> None:
        """Give memory back that rows have left, where there is much of it. Nothing of a row may be on its way."""

    def cold(self, size: int, *pinned: Container[bytes]) -> dict[bytes, bytes]:
        """Rows of about so many bytes that are likely to be asked for last; none that is pinned."""
        found = dict[bytes, bytes]()
        for key, row in self._rows.items():
            if size <= 0:
                break
            if not any(key in keys for keys in pinned):
                found[key] = row
                size -= len(row) + OVERHEAD
        return found


try:
    from streams.kernel import Heap as Heap
except ImportError:  # Python had no headers where Freshet was installed
    Heap = PlainHeap  # type: ignore[assignment,misc]


class TakenRows:
    """Some keys and their rows as they are in memory: to be read or packed before anything is folded again."""

    def __init__(self, held: Heap, which: Collection[bytes]) -> None:
        self.held, self.which = held, which

    def __len__(self) -> int:
        return len(self.which)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.held.rows(self.which))


class Rows:
    """A mapping from key to row; `changed` are the keys whose rows the next snapshot takes."""

    def __init__(self) -> None:
        self.held = Heap()
        """Those in memory."""
        self.changed: dict[bytes, None] = {}
        self.reads = 0
        """Rows that were read from elsewhere."""

    def __len__(self) -> int:
        return len(self.held)

    @property
    def in_memory(self) -> int:
        return len(self.held)

    def get(self, key: bytes) -> bytes | None:
        return self.held.get(key)

    def set(self, key: bytes, row: bytes) -> None:
        self.held.put(key, row)
        self.changed[key] = None

    def load(self, records: Collection[State]) -> Own:
        """Records of a changelog, in their order. The engine's own among them."""
        own: Own = {}
        fill(records, self.held, {}, own)
        return own

    def take(self) -> TakenRows:
        """What has changed since it was taken last."""
        changed, self.changed = self.changed, {}
        return TakenRows(self.held, changed)


def fill(records: Iterable[State], held: Heap, spilled: dict[bytes, int], own: Own) -> None:
    """Put records into these, in their order."""
    for key, row in records:
        if is_meta_key(key):
            own[key] = row
            continue
        if spilled:
            spilled.pop(key, None)
        if row is None:
            held.drop((key,))
        else:
            held.put(key, row)

"""The rows of one partition by their keys, in memory. Where else they are kept is left to whoever runs the fold."""

from collections.abc import Collection, Iterable, Mapping

from streams.fold.records import ROW_OVERHEAD, Own, State
from streams.profiles import is_meta_key


class Rows:
    """A mapping from key to row; `changed` is what the next snapshot takes."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        """Those in memory."""
        self.changed: dict[bytes, bytes] = {}
        self.size = self.reads = 0
        """Bytes of those in memory; rows that were read from elsewhere."""

    def __len__(self) -> int:
        return len(self.held)

    @property
    def in_memory(self) -> int:
        return len(self.held)

    def get(self, key: bytes) -> bytes | None:
        return self.held.get(key)

    def set(self, key: bytes, row: bytes, before: bytes | None) -> None:
        """`before`: what `get` gave."""
        self.update({key: row}, len(row) - len(before or b""))

    def update(self, rows: Mapping[bytes, bytes], growth: int) -> None:
        """Set many, which have so many bytes more than what `get` gave."""
        had = len(self.held)
        self.held.update(rows)
        self.changed.update(rows)
        self.size += growth + (len(self.held) - had) * ROW_OVERHEAD

    def load(self, records: Collection[State]) -> Own:
        """Records of a changelog, in their order. The engine's own among them."""
        own: Own = {}
        self.size += fill(records, self.held, {}, own)
        return own

    def take(self) -> list[tuple[bytes, bytes]]:
        """What has changed since it was taken last."""
        changed, self.changed = self.changed, {}
        return list(changed.items())


def fill(records: Iterable[State], held: dict[bytes, bytes], spilled: dict[bytes, int], own: Own) -> int:
    """Put records into these, in their order. By how many bytes that makes `held` larger."""
    growth = 0
    for key, row in records:
        if is_meta_key(key):
            own[key] = row
            continue
        before = held.get(key)
        if before is not None:
            growth -= len(before) + ROW_OVERHEAD
        elif spilled:
            spilled.pop(key, None)
        if row is not None:
            held[key] = row
            growth += len(row) + ROW_OVERHEAD
        elif before is not None:
            del held[key]
    return growth

"""The dedup ring: the ids of the events that a partition has applied lately.

It is cut by the number of applied events, never by commits or time, so what it holds is a pure function of the
source: an oracle, a backfill and a worker after any crash agree on what is a duplicate.
"""

from array import array
from collections.abc import Iterable
from struct import Struct

try:
    from streams.kernel import Numbers
except ImportError:  # Python had no headers where Freshet was installed
    Numbers = set  # type: ignore[assignment,misc]

BLOCK = 512
"""Ids in a block. A commit writes only the blocks that changed, so this bounds what it writes (4 KiB a block)."""
KEY = b"\0ring"
_INDEX = Struct(">Q")


class BadRing(RuntimeError):
    """The ring in the changelog does not match the meta record: they were not written by one transaction."""


class Ring:
    """At least the last `window` applied ids (64-bit hashes), at most `window + BLOCK - 1`."""

    __slots__ = ("_blocks", "_changed", "_fresh", "_index", "_kept", "seen")

    def __init__(self, window: int) -> None:
        if window <= 0 or window % BLOCK:
            raise ValueError(f"the dedup window must be a positive multiple of {BLOCK}, not {window}")
        self._kept = window // BLOCK  # full blocks kept beside the growing one
        self._index, self._fresh = 0, array("Q")
        self._blocks: dict[int, array[int]] = {}
        self._changed: dict[int, array[int] | None] = {}
        self.seen = Numbers()

    def add(self, hashed: int) -> None:
        """Remember one id that is not in `seen`."""
        self.seen.add(hashed)
        self.extend((hashed,))

    @property
    def room(self) -> int:
        """How many more ids the growing block takes."""
        return BLOCK - len(self._fresh)

    def extend(self, hashed: Iterable[int]) -> None:
        """Ids that were put into `seen` just now, at most `room`."""
        self._fresh.extend(hashed)
        if len(self._fresh) == BLOCK:
            self._blocks[self._index] = self._changed[self._index] = self._fresh
            self._index, self._fresh = self._index + 1, array("Q")
            self._drop(self._index - self._kept - 1)

    def _drop(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is not None:
            self.seen.difference_update(block)
            self._changed[index] = None

    def records(self) -> list[tuple[bytes, bytes | None]]:
        """(key, value) of the blocks that changed since the last call; None where a block has left the window."""
        changed, self._changed = {**self._changed, self._index: self._fresh}, {}
        return [
            (KEY + _INDEX.pack(index), None if block is None else block.tobytes()) for index, block in changed.items()
        ]

    def load(self, key: bytes, value: bytes | None) -> None:
        """One record of the changelog, in its order."""
        (index,) = _INDEX.unpack_from(key, len(KEY))
        if value is None:
            self._blocks.pop(index, None)
        else:
            self._blocks[index] = array("Q", value)

    def loaded(self, applied: int) -> None:
        """Take up after the last record; `applied` is the meta record's count. Raises `BadRing`."""
        self._index = applied // BLOCK
        self._fresh = self._blocks.pop(self._index, array("Q"))
        full = sorted(self._blocks)
        whole = all(len(block) == BLOCK for block in self._blocks.values())
        contiguous = full == list(range(self._index - len(full), self._index)) and len(full) >= min(1, self._index)
        if len(self._fresh) != applied % BLOCK or not whole or not contiguous:
            held = f"{len(full)} blocks and {len(self._fresh)} ids"
            raise BadRing(f"the dedup ring holds {held}, which does not follow from {applied} applied events")
        self.seen = Numbers()
        for block in (self._fresh, *self._blocks.values()):
            self.seen.update(block)
        for index in full[: max(0, len(full) - self._kept)]:  # the window was made smaller
            self._drop(index)

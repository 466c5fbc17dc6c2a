"""The profile of items: folded from events of many partitions, in any order, and read at the last closed tile."""

from dataclasses import dataclass
from struct import Struct
from typing import Any, ClassVar

from streams.aggregates import EVER, TILE, BadDeclaration
from streams.events import Event, Micros
from streams.profiles import Part, Profile, State

CLOSING: Micros = 10_000_000
"""A tile counts as closed this long after its end, when its events have been folded."""
OPEN_TILES = 3
"""Tiles of an item kept apart behind its newest one, so that a state can still be read as of any of their ends."""

_U16, _I32 = Struct("<H"), Struct("<i")


def t_item(at: Micros) -> Micros:
    """The end of the last closed tile at an instant: the time as of which item values are read."""
    return (at - CLOSING) // TILE * TILE


@dataclass(frozen=True)
class TiledProfile(Profile):
    """A profile whose events come from many partitions in no fixed order, read at the last closed tile.

    Its state keeps the newest tiles apart: reading at a tile's end joins only what lies before it, which is exact
    because every aggregate here is order-free. A declaration that breaks this is refused.
    """

    _open_tiles: ClassVar[int | None] = OPEN_TILES

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in self.features:
            if not f.order_free:
                raise BadDeclaration(
                    f"{self.name}.{f.name}: {type(f).__name__} depends on the order of events, and events of one "
                    f"{self.name} come from many partitions in no fixed order; "
                    "use Count, Sum, Mean, Distinct, Recent or Since"
                )

    def late(self, at: Micros, newest: Micros) -> bool:
        """Never: lateness is judged by the user's profile."""
        return False

    def _stamp(self, state: State, at: Micros, arrival: Micros) -> None:
        """Without the order of the events, which is none here."""
        state.newest = state.event_time = max(at, state.newest)
        state.created = max(arrival, state.created)

    def update(self, state: State, event: Event) -> None:
        """Count one event into its tile; tiles that no read can ask for apart any more are joined."""
        self._stamp(state, event.event_time, event.arrival)
        tile, last = event.event_time // TILE, state.newest // TILE - OPEN_TILES
        if state.tiles:
            self._close(state, last)
        part = state.part if tile < last else state.tiles.get(tile)
        if part is None:
            part = state.tiles[tile] = Part(len(self.features))
        self._count_in(part, event)

    def _join(self, part: Part, other: Part) -> None:
        """Count all events of `other` in. A feature that only `other` has seen is taken over as its bytes."""
        for i, feature in enumerate(self.features):
            if other.live[i] is None and other.packed[i] is None:
                continue
            if part.live[i] is None and part.packed[i] is None:
                part.packed[i] = feature.pack(other.live[i]) if other.packed[i] is None else other.packed[i]
            else:
                mine = part.live[i] = self._slot(part, i)
                feature.merge(mine, self._slot(other, i))
                part.packed[i] = None

    def _body(self, state: State) -> bytes:
        """The base, how many tiles (u16), and for each its index (i32) and its part."""
        packed = [self._pack(state.part), _U16.pack(len(state.tiles))]
        for tile in sorted(state.tiles):
            packed += [_I32.pack(tile), self._pack(state.tiles[tile])]
        return b"".join(packed)

    def _load(self, state: State, data: bytes) -> int:
        at = super()._load(state, data)
        (n,) = _U16.unpack_from(data, at)
        at += _U16.size
        for _ in range(n):
            (tile,) = _I32.unpack_from(data, at)
            state.tiles[tile], at = self._unpack(data, at + _I32.size)
        return at

    def values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at the last tile that was closed at `at`."""
        return self.values_at_tile(data, t_item(at))

    def values_at_tile(self, data: bytes | State | None, tile: Micros) -> dict[str, Any]:
        """Every column as of a tile's end (microseconds): only events before it count."""
        compiled = self._compiled_read(data, tile, tile // TILE)
        if compiled is not None:
            return compiled[0]
        return self._read(self._joined(self._open(data), tile // TILE), tile)

    def reading(self, data: bytes, tile: Micros) -> tuple[dict[str, Any], Micros]:
        """`values_at_tile`, and the end of the first tile after it at which they may differ with no new event.

        Ages aside, which grow always. A matrix of all items reads a row again only then, or when its state changed.
        """
        compiled = self._compiled_read(data, tile, tile // TILE)
        if compiled is not None:
            return compiled[0], -(-compiled[1] // TILE) * TILE
        state = self.decode(data)
        opens = [(t + 1) * TILE for t in state.tiles if t >= tile // TILE]
        self._close(state, tile // TILE)  # nobody else has this state
        values: dict[str, Any] = {}
        change = min(opens, default=EVER)
        for i, (names, feature) in enumerate(zip(self._names, self.features, strict=True)):
            read, until = feature.reading(self._slot(state.part, i), tile)
            values.update(zip(names, read, strict=True))
            change = min(change, until)
        return values, -(-change // TILE) * TILE

    def _close(self, state: State, before: int) -> None:
        """Join the tiles below index `before` into the base."""
        for tile in [t for t in state.tiles if t < before]:
            self._join(state.part, state.tiles.pop(tile))

    def live_values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at an instant, the open tile included: for trending only, never for training."""
        compiled = self._compiled_read(data, at, EVER)
        if compiled is not None:
            return compiled[0]
        return self._read(self._joined(self._open(data), EVER), at)

    def _joined(self, state: State, before: int) -> Part:
        """The base joined with the tiles below index `before`. Reading never changes a state: a join is a copy."""
        if min(state.tiles, default=before) >= before:
            return state.part
        copy = self.new()
        self._join(copy.part, state.part)
        for tile, part in state.tiles.items():
            if tile < before:
                self._join(copy.part, part)
        return copy.part

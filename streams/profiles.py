"""Profiles: aggregates compiled into one state per key, its bytes, and its reader.

A `Profile` (users) is folded in the order of its partition and read at the instant. A `TiledProfile` (items) is folded
from events of many partitions, in any order, and read at the last closed tile. Kafka, transactions and the online
store are left to `streams.engine`, `streams.sinks` and `feature_repo`.

A row is a header (profile, version, times) and, for each aggregate that has seen something, its signature and packed
slot. So a declaration may gain, lose and reorder features freely, and one whose parameters changed reads as never
seen until a backfill has rebuilt it.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import msgspec

from streams.aggregates import EVER, TILE, Aggregate, BadDeclaration, Column, Slot, span_of
from streams.events import Event, Micros

CLOSING: Micros = 10_000_000
"""A tile counts as closed this long after its end, when its events have been folded."""
OPEN_TILES = 3
"""Tiles of an item kept apart behind its newest one, so that a state can still be read as of any of their ends."""

_MAGIC = b"fs\x01"
_HEADER = Struct("<3sBqqqq")
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class BadState(ValueError):
    """Bytes that carry a profile's header and are no state of it."""


class Header(NamedTuple):
    """What a row says without decoding its slots. Version -1: no event yet. Times are epoch microseconds."""

    profile: int
    version: int
    event_time: Micros
    created: Micros
    newest: Micros


def header(data: bytes) -> Header | None:
    """The header of a row, or None where the bytes are no row (Feast infers schemas with made-up bytes)."""
    if len(data) < _HEADER.size or data[:3] != _MAGIC:
        return None
    return Header(*_HEADER.unpack_from(data)[1:])


def is_meta_key(key: bytes) -> bool:
    """Whether a record of `user-features` or `item-features` is the engine's own (progress, dedup ring) and no row."""
    return key[:1] == b"\0"


def t_item(at: Micros) -> Micros:
    """The end of the last closed tile at an instant: the time as of which item values are read."""
    return (at - CLOSING) // TILE * TILE


class State:
    """The mutable state of one key.

    `version` is the source offset of the last applied event, `event_time` rises by at least 1 us an update, `created`
    is the latest arrival, `newest` the latest event time. `tiles` (items only) maps a tile's index to its own slots.
    """

    __slots__ = ("created", "event_time", "newest", "slots", "tiles", "version")

    def __init__(self, slots: list[Slot]) -> None:
        self.version, self.event_time, self.created, self.newest = -1, 0, 0, 0
        self.slots = slots
        self.tiles: dict[int, list[Slot]] = {}


@dataclass(frozen=True)
class Profile:
    """Everything that is known about one kind of key, declared once.

    `lateness`: an event older than this behind the key's newest one is late: counted, not applied.
    """

    name: str
    key: str
    features: tuple[Aggregate, ...] | list[Aggregate]
    lateness: str = "30d"
    columns: tuple[Column, ...] = field(init=False, repr=False, compare=False)
    """Every column of every feature, in the order of declaration."""
    _names: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)
    _signatures: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _by_signature: dict[int, int] = field(init=False, repr=False, compare=False)
    _plans: dict[str, list[tuple[int, Aggregate, float | None]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        columns = tuple(c for f in self.features for c in f.columns)
        names = [c.name for c in columns]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise BadDeclaration(f"{self.name}: two features give the column {min(twice)}; rename one")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "_names", tuple(tuple(c.name for c in f.columns) for f in self.features))
        object.__setattr__(self, "_signatures", tuple(f.signature for f in self.features))
        object.__setattr__(self, "_by_signature", {s: i for i, s in enumerate(self._signatures)})
        if len(self._by_signature) < len(self.features):
            raise BadDeclaration(f"{self.name}: two features have one signature; rename one")
        object.__setattr__(self, "_plans", {})
        object.__setattr__(self, "_late", span_of(self.lateness))
        object.__setattr__(self, "_id", blake2b(self.name.encode(), digest_size=1).digest()[0])

    _late: Micros = field(init=False, repr=False, compare=False)
    _id: int = field(init=False, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the key, the features and all their parameters."""
        parts = (self.name, self.key, self.lateness, list(self._signatures))
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def new(self) -> State:
        """The state of a key that was never seen."""
        return State(self._new_slots())

    def _new_slots(self) -> list[Slot]:
        """None until an event reaches the feature: most tiles of an item are touched by one or two of them."""
        return [None] * len(self.features)

    def _plan(self, kind: str) -> list[tuple[int, Aggregate, float | None]]:
        """Which features an event of this type reaches, with the least value each needs."""
        plan: list[tuple[int, Aggregate, float | None]] = []
        for i, feature in enumerate(self.features):
            selector = feature.selector()
            bounds = [None] if selector is None else [least for name, least in selector.terms if name == kind]
            if bounds:
                plan.append((i, feature, None if None in bounds else min(b for b in bounds if b is not None)))
        if len(self._plans) < 1_024:  # custom types are the clients' choice: do not grow with them for ever
            self._plans[kind] = plan
        return plan

    def _apply(self, slots: list[Slot], event: Event) -> None:
        for i, feature, least in self._plans.get(event.type) or self._plan(event.type):
            if least is None or (event.value is not None and event.value >= least):
                slot = slots[i]
                if slot is None:
                    slot = slots[i] = feature.new()
                feature.update(slot, event)

    def update(self, state: State, event: Event) -> bool:
        """Count one event in. False if it is late: then nothing changed."""
        at = event.event_time
        if at < state.newest - self._late:
            return False
        self._apply(state.slots, event)
        self._stamp(state, at, event.arrival)
        return True

    def _stamp(self, state: State, at: Micros, arrival: Micros) -> None:
        state.newest = max(state.newest, at)
        state.event_time = max(state.event_time + 1, at)
        state.created = max(state.created, arrival)

    def _pack(self, slots: list[Slot]) -> dict[int, bytes]:
        parts = zip(self._signatures, self.features, slots, strict=True)
        return {signature: data for signature, f, slot in parts if slot is not None and (data := f.pack(slot))}

    def _unpack(self, packed: dict[int, bytes]) -> list[Slot]:
        slots = self._new_slots()
        for signature, data in packed.items():
            i = self._by_signature.get(signature)
            if i is not None:
                slots[i] = self.features[i].unpack(data)
        return slots

    def _body(self, state: State) -> Any:
        return self._pack(state.slots)

    def _load(self, state: State, body: Any) -> None:
        state.slots = self._unpack(body)

    def encode(self, state: State) -> bytes:
        """The row of a state; the same state gives the same bytes."""
        head = _HEADER.pack(_MAGIC, self._id, state.version, state.event_time, state.created, state.newest)
        return head + _encode(self._body(state))

    def decode(self, data: bytes) -> State:
        """The inverse of `encode`, under this or an older declaration. Raises `BadState`."""
        head = header(data)
        if head is None or head.profile != self._id:
            raise BadState(f"these {len(data)} bytes are no state of profile {self.name!r}")
        state = State([])
        state.version, state.event_time, state.created, state.newest = head[1:]
        try:
            self._load(state, _decode(data[_HEADER.size :]))
        except (msgspec.DecodeError, ValueError, TypeError, AttributeError) as error:
            raise BadState(f"a state of profile {self.name!r} does not decode: {error}") from error
        return state

    def values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at an instant. Defaults for a key that was never seen and for bytes without a header."""
        return self._read(self._open(data), at)

    def _open(self, data: bytes | State | None) -> State:
        if isinstance(data, State):
            return data
        return self.new() if data is None or header(data) is None else self.decode(data)

    def _read(self, state: State, at: Micros) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for names, feature, slot in zip(self._names, self.features, state.slots, strict=True):
            values.update(zip(names, feature.value(feature.new() if slot is None else slot, at), strict=True))
        return values


@dataclass(frozen=True)
class TiledProfile(Profile):
    """A profile whose events come from many partitions in no fixed order, read at the last closed tile.

    Its state keeps the newest tiles apart: reading at a tile's end joins only what lies before it, which is exact
    because every aggregate here is order-free. A declaration that breaks this is refused.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in self.features:
            if not f.order_free:
                raise BadDeclaration(
                    f"{self.name}.{f.name}: {type(f).__name__} depends on the order of events, and events of one "
                    f"{self.name} come from many partitions in no fixed order; "
                    "use Count, Sum, Mean, Distinct, Recent or Since"
                )

    def update(self, state: State, event: Event) -> bool:
        """Count one event into its tile. Lateness is judged by the user's profile, so nothing is late here."""
        tile = event.event_time // TILE
        slots = state.tiles.get(tile)
        if slots is None:
            slots = state.tiles[tile] = self._new_slots()
        self._apply(slots, event)
        self._stamp(state, event.event_time, event.arrival)
        return True

    def merge(self, state: State, delta: State) -> None:
        """Count all events of `delta` in; tiles that no read can ask for apart any more are joined."""
        for tile, slots in delta.tiles.items():
            mine = state.tiles.get(tile)
            if mine is None:
                mine = state.tiles[tile] = self._new_slots()
            self._join(mine, slots)
        self._stamp(state, delta.newest, delta.created)
        last = state.newest // TILE - OPEN_TILES
        for tile in sorted(t for t in state.tiles if t < last):
            self._join(state.slots, state.tiles.pop(tile))

    def _join(self, slots: list[Slot], others: list[Slot]) -> None:
        for i, other in enumerate(others):
            if other is not None:
                if slots[i] is None:
                    slots[i] = self.features[i].new()
                self.features[i].merge(slots[i], other)

    def _body(self, state: State) -> Any:
        return [self._pack(state.slots), [[t, self._pack(state.tiles[t])] for t in sorted(state.tiles)]]

    def _load(self, state: State, body: Any) -> None:
        base, tiles = body
        state.slots = self._unpack(base)
        state.tiles = {tile: self._unpack(packed) for tile, packed in tiles}

    def values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at the last tile that was closed at `at`."""
        return self.values_at_tile(data, t_item(at))

    def values_at_tile(self, data: bytes | State | None, tile: Micros) -> dict[str, Any]:
        """Every column as of a tile's end (microseconds): only events before it count."""
        return self._read_joined(self._open(data), tile // TILE, tile)

    def reading(self, data: bytes, tile: Micros) -> tuple[dict[str, Any], Micros]:
        """`values_at_tile`, and the end of the first tile after it at which they may differ with no new event.

        Ages aside, which grow always. A matrix of all items reads a row again only then, or when its state changed.
        """
        state = self.decode(data)
        opens = [(t + 1) * TILE for t in state.tiles if t >= tile // TILE]
        for _, slots in sorted((t, slots) for t, slots in state.tiles.items() if t < tile // TILE):
            self._join(state.slots, slots)  # nobody else has this state
        parts = zip(self.features, state.slots, strict=True)
        change = min([*opens, *(f.stable_until(slot, tile) for f, slot in parts if slot is not None)], default=EVER)
        return self._read(state, tile), -(-change // TILE) * TILE

    def live_values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at an instant, the open tile included: for trending only, never for training."""
        return self._read_joined(self._open(data), EVER, at)

    def _read_joined(self, state: State, before: int, at: Micros) -> dict[str, Any]:
        return self._read(self._joined(state, before), at)

    def _joined(self, state: State, before: int) -> State:
        """The base joined with the tiles below index `before`. Reading never changes a state: a join is a copy."""
        tiles = [slots for tile, slots in sorted(state.tiles.items()) if tile < before]
        if not tiles:
            return state
        joined = State(self._unpack(self._pack(state.slots)))
        for slots in tiles:
            self._join(joined.slots, slots)
        return joined

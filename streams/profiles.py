"""Profiles: aggregates compiled into one state per key, its bytes, and its reader.

A `Profile` (users) is folded in the order of its partition and read at the instant; for items, whose events come from
many partitions, see `streams.tiled`. Kafka, transactions and the online store are left to `streams.engine`,
`streams.sinks` and `feature_repo`.

A row is a header (profile, version, times) and, for each aggregate that has seen something, its signature and packed
slot. So a declaration may gain, lose and reorder features freely, and one whose parameters changed reads as never
seen until a backfill has rebuilt it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from streams.aggregates import Aggregate, BadDeclaration, Column, Slot, span_of
from streams.aggregates.packing import pack_size, unpack_size
from streams.compiled import kernel_of
from streams.events import Event, Micros

if TYPE_CHECKING:
    from streams.kernel import Kernel

_MAGIC = b"fs\x04"
_HEADER, _U16, _U32 = Struct("<3sBqqqq"), Struct("<H"), Struct("<I")


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


def newest_of(row: bytes | None) -> Micros:
    """The time of a row's newest event; 0 where there is none."""
    return 0 if row is None else int(_HEADER.unpack_from(row)[5])


def is_meta_key(key: bytes) -> bool:
    """Whether a record of `user-features` or `item-features` is the engine's own (progress, dedup ring) and no row."""
    return key[:1] == b"\0"


class Part:
    """One slot for each feature of a profile: unpacked in `live`, as bytes in `packed`, or both while they are equal.

    None in both: no event has reached the feature. A slot is unpacked when an event reaches it and packed again when
    its state is next encoded, so an event costs what it touches and not what is known.
    """

    __slots__ = ("live", "packed")

    def __init__(self, size: int) -> None:
        self.live: list[Slot | None] = [None] * size
        self.packed: list[bytes | None] = [None] * size


class State:
    """The mutable state of one key.

    `version` is the source offset of the last applied event, `created` the latest arrival, `newest` the latest event
    time. `event_time` rises by at least 1 us an update; an item's is `newest`, as its events come in no order. `tiles`
    (items only) maps a tile's index to its own part.
    """

    __slots__ = ("created", "event_time", "newest", "part", "tiles", "version")

    def __init__(self, part: Part) -> None:
        self.version, self.event_time, self.created, self.newest = -1, 0, 0, 0
        self.part = part
        self.tiles: dict[int, Part] = {}


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
    _column_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _signatures: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _by_signature: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        columns = tuple(c for f in self.features for c in f.columns)
        names = [c.name for c in columns]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise BadDeclaration(f"{self.name}: two features give the column {min(twice)}; rename one")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "_column_names", tuple(names))
        object.__setattr__(self, "_names", tuple(tuple(c.name for c in f.columns) for f in self.features))
        object.__setattr__(self, "_signatures", tuple(f.signature for f in self.features))
        object.__setattr__(self, "_by_signature", {s: i for i, s in enumerate(self._signatures)})
        if len(self._by_signature) < len(self.features):
            raise BadDeclaration(f"{self.name}: two features have one signature; rename one")
        object.__setattr__(self, "_reaches", {})
        object.__setattr__(self, "_late", span_of(self.lateness))
        object.__setattr__(self, "id", blake2b(self.name.encode(), digest_size=1).digest()[0])
        object.__setattr__(self, "kernel", kernel_of(self.id, self.features, self.reached, self._open_tiles))

    id: int = field(init=False, repr=False, compare=False)
    """Marks the profile's rows."""
    _reaches: dict[str, list[tuple[int, Aggregate, float | None]]] = field(init=False, repr=False, compare=False)
    _late: Micros = field(init=False, repr=False, compare=False)
    kernel: "Kernel | None" = field(init=False, repr=False, compare=False)
    _open_tiles: ClassVar[int | None] = None

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the key, the features and all their parameters."""
        parts = (self.name, self.key, self.lateness, list(self._signatures))
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def new(self) -> State:
        """The state of a key that was never seen."""
        return State(Part(len(self.features)))

    @property
    def compiled(self) -> bool:
        """Whether `advance` runs as machine code."""
        return self.kernel is not None

    @property
    def lateness_us(self) -> Micros:
        """`lateness` in microseconds."""
        return self._late

    def reached(self, kind: str) -> list[tuple[int, Aggregate, float | None]]:
        """Which features an event of this type reaches, with the least value each needs."""
        known = self._reaches.get(kind)
        if known is not None:
            return known
        found: list[tuple[int, Aggregate, float | None]] = []
        for i, feature in enumerate(self.features):
            selector = feature.selector()
            bounds = [None] if selector is None else [least for name, least in selector.terms if name == kind]
            if bounds:
                found.append((i, feature, None if None in bounds else min(b for b in bounds if b is not None)))
        if len(self._reaches) < 1_024:  # custom types are the clients' choice: do not grow with them for ever
            self._reaches[kind] = found
        return found

    def _slot(self, part: Part, i: int) -> Slot:
        """The slot of a feature; one of its own where the part has it as bytes or not at all."""
        slot = part.live[i]
        if slot is not None:
            return slot
        feature, data = self.features[i], part.packed[i]
        if not data:
            return feature.new()
        try:
            return feature.unpack(data)
        except (ValueError, StructError) as error:
            raise BadState(f"{self.name}.{feature.name}: its slot does not decode: {error}") from error

    def late(self, at: Micros, newest: Micros) -> bool:
        """Whether an event of that time is not to be applied to a state whose newest event has the other."""
        return at < newest - self._late

    def update(self, state: State, event: Event) -> None:
        """Count one event in, which is not late."""
        self._count_in(state.part, event)
        self._stamp(state, event.event_time, event.arrival)

    def _count_in(self, part: Part, event: Event) -> None:
        value = event.value
        for i, feature, least in self.reached(event.type):
            if least is None or (value is not None and value >= least):
                slot = part.live[i] = self._slot(part, i)
                feature.update(slot, event)
                part.packed[i] = None

    def advance(self, row: bytes | None, events: Iterable[Event], version: int) -> bytes:
        """The row after these events, none of them late; `version` is the source offset of the last one.

        Raises `BadState`.
        """
        if self.kernel is None:
            return self.advance_plainly(row, events, version)
        try:
            return self.kernel.advance(row, events, version)
        except ValueError as error:
            raise BadState(f"a state of profile {self.name!r} does not decode: {error}") from error

    def advance_plainly(self, row: bytes | None, events: Iterable[Event], version: int) -> bytes:
        """What `advance` does, in Python: the definition, and the way where nothing was compiled."""
        state = self.new() if row is None else self.decode(row)
        for event in events:
            self.update(state, event)
        state.version = version
        return self.encode(state)

    def _stamp(self, state: State, at: Micros, arrival: Micros) -> None:
        if at > state.newest:
            state.newest = at
        state.event_time = at if at > state.event_time else state.event_time + 1
        if arrival > state.created:
            state.created = arrival

    def _pack(self, part: Part) -> bytes:
        """How many slots (u16), for each its signature (u32), its size and its bytes."""
        live, packed = part.live, part.packed
        for i, slot in enumerate(live):
            if slot is not None and packed[i] is None:
                packed[i] = self.features[i].pack(slot)
        held = [(signature, data) for signature, data in zip(self._signatures, packed, strict=True) if data]
        slots = (piece for s, data in held for piece in (_U32.pack(s), pack_size(len(data)), data))
        return b"".join((_U16.pack(len(held)), *slots))

    def _unpack(self, data: bytes, at: int) -> tuple[Part, int]:
        """The part that begins at `at`, and where it ends. Raises `ValueError`."""
        part = Part(len(self.features))
        (n,) = _U16.unpack_from(data, at)
        at += _U16.size
        for _ in range(n):
            (signature,) = _U32.unpack_from(data, at)
            size, at = unpack_size(data, at + _U32.size)
            i = self._by_signature.get(signature)
            if i is not None:
                part.packed[i] = data[at : at + size]
            at += size
        if at > len(data):
            raise ValueError(f"its slots end at {at} of {len(data)} bytes")
        return part, at

    def _body(self, state: State) -> bytes:
        return self._pack(state.part)

    def _load(self, state: State, data: bytes) -> int:
        """Take the slots over; where they end."""
        state.part, end = self._unpack(data, _HEADER.size)
        return end

    def encode(self, state: State) -> bytes:
        """The row of a state; the same state gives the same bytes."""
        head = _HEADER.pack(_MAGIC, self.id, state.version, state.event_time, state.created, state.newest)
        return head + self._body(state)

    def decode(self, data: bytes) -> State:
        """The inverse of `encode`, under this or an older declaration. Raises `BadState`.

        Slots stay packed: bytes inside one that do not decode are found when it is read or reached.
        """
        head = header(data)
        if head is None or head.profile != self.id:
            raise BadState(f"these {len(data)} bytes are no state of profile {self.name!r}")
        state = self.new()
        state.version, state.event_time, state.created, state.newest = head[1:]
        try:
            end = self._load(state, data)
        except (ValueError, StructError) as error:
            raise BadState(f"a state of profile {self.name!r} does not decode: {error}") from error
        if end != len(data):
            raise BadState(f"a state of profile {self.name!r} has {len(data) - end} bytes too many")
        return state

    def values(self, data: bytes | State | None, at: Micros) -> dict[str, Any]:
        """Every column at an instant. Defaults for a key that was never seen and for bytes without a header."""
        compiled = self._compiled_read(data, at, 0)
        return self._read(self._open(data).part, at) if compiled is None else compiled[0]

    def _compiled_read(
        self, data: bytes | State | None, at: Micros, before: int
    ) -> tuple[dict[str, Any], Micros] | None:
        """Values, of tiles below index `before` only, and when they change first; None where Python has to read."""
        if self.kernel is None or not isinstance(data, bytes) or header(data) is None:
            return None
        try:
            values, until = self.kernel.read(data, at, before)
        except ValueError as error:
            raise BadState(f"a state of profile {self.name!r} does not decode: {error}") from error
        return dict(zip(self._column_names, values, strict=True)), until

    def _open(self, data: bytes | State | None) -> State:
        if isinstance(data, State):
            return data
        return self.new() if data is None or header(data) is None else self.decode(data)

    def _read(self, part: Part, at: Micros) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for i, (names, feature) in enumerate(zip(self._names, self.features, strict=True)):
            values.update(zip(names, feature.value(self._slot(part, i), at), strict=True))
        return values

"""`Distinct`: how many different values, by sketches that join exactly."""

from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from streams.aggregates.base import BadDeclaration, Column, Slot, hash64, texts_of, words
from streams.aggregates.packing import pack_series, unpack_series
from streams.aggregates.windows import Windowed, first_tile, leaves
from streams.events import Event, Micros


@dataclass(frozen=True)
class Distinct(Windowed):
    """How many different values of a text field. Columns `<name>_<window>`: int64.

    Each tile keeps its `k` smallest 32-bit hashes: exact below `k` (but for values that share one, of n values
    n**2 / 2**33 pairs), beyond it the k-minimum-values estimate (Bar-Yossef et al., RANDOM 2002), whose relative
    error is about 1 / sqrt(k - 2). The union of tiles is again such a sketch, so merging is exact.
    """

    by: str = "item_id"
    k: int = 64
    _values: Callable[[Event], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 8:
            raise BadDeclaration(f"{self.name}: k must be at least 8")
        object.__setattr__(self, "_values", texts_of(self.by))

    @property
    def bound(self) -> str:
        return f"{super().bound} of at most {self.k} hashes"

    @property
    def columns(self) -> tuple[Column, ...]:
        what = self.of or "events"
        doc = f"number of different {self.by} of {what}"
        return tuple(Column(f"{self.name}_{w}", "int64", 0, f"{doc}, {words(w)}") for w in self.windows)

    def new(self) -> Slot:
        return [{} for _ in self.sizes]

    def _keep(self, series: dict[int, list[int]], tile: int, hashes: list[int], keep: int) -> None:
        newest = max(series, default=tile)
        if newest - tile > keep:
            return
        kept = series.get(tile)
        if kept is None:
            kept = series[tile] = []
            if tile > newest:
                for old in [t for t in series if tile - t > keep]:
                    del series[old]
        for h in hashes:
            i = bisect_left(kept, h)
            if i == len(kept) or kept[i] != h:
                kept.insert(i, h)
        del kept[self.k :]

    def update(self, slot: Slot, event: Event) -> None:
        hashes = [hash64(text) >> 32 for text in self._values(event)]
        if hashes:
            for series, (size, keep) in zip(slot, self.sizes, strict=True):
                self._keep(series, event.event_time // size, hashes, keep)

    def merge(self, slot: Slot, other: Slot) -> None:
        for series, tiles, (_, keep) in zip(slot, other, self.sizes, strict=True):
            for tile in sorted(tiles):
                self._keep(series, tile, tiles[tile], keep)

    def value(self, slot: Slot, at: Micros) -> tuple[Any, ...]:
        return tuple(self._estimate(slot[i], first_tile(window, tile, at)) for i, window, tile in self.reads)

    def _estimate(self, series: dict[int, list[int]], first: int) -> int:
        union = sorted({h for tile, hashes in series.items() if tile >= first for h in hashes})
        if len(union) < self.k:
            return len(union)
        return round((self.k - 1) * 2.0**32 / (union[self.k - 1] + 1))

    def stable_until(self, slot: Slot, at: Micros) -> Micros:
        return min(leaves(sorted(slot[i]), window, tile, at) for i, window, tile in self.reads)

    def pack(self, slot: Slot) -> bytes:
        """For each tile size: a series of how many hashes each tile has, then the hashes (u32)."""
        if not slot[0]:
            return b""
        packed = []
        for series in slot:
            tiles = sorted(series)
            packed.append(pack_series((array("i", tiles), array("q", [len(series[t]) for t in tiles]))))
            packed += [array("I", series[t]).tobytes() for t in tiles]
        return b"".join(packed)

    def unpack(self, data: bytes) -> Slot:
        slot, at = [], 0
        for _ in self.sizes:
            (tiles, counts), start = unpack_series(data, at)
            at = start + 4 * sum(counts)
            if min(counts, default=0) < 0 or at > len(data):
                raise ValueError(f"{len(tiles)} tiles do not fit into {len(data)} bytes")
            hashes = iter(array("I", data[start:at]))
            slot.append({tile: list(islice(hashes, count)) for tile, count in zip(tiles, counts, strict=True)})
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes too many")
        return slot

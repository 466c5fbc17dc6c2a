"""How slots become bytes: series of tiles and texts, each number in the fewest bytes (1, 2, 4 or 8) that hold them all.

Little-endian. The same series gives the same bytes. `streams/kernel.pyx` reads and edits them as they lie here.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from struct import Struct

Series = tuple["array[int]", "array[int]"]
"""Sorted tile indices (i32) and what each tile holds (i64)."""

MOST_TILES = 65_535
U32, I64 = Struct("<I"), Struct("<q")
_U16, _TILES = Struct("<H"), Struct("<HBi")
_UNSIGNED, _SIGNED = "BHI", "bhiq"


def _unsigned(most: int) -> int:
    """0, 1 or 2: numbers up to `most` take 1, 2 or 4 bytes."""
    return 0 if most < 1 << 8 else 1 if most < 1 << 16 else 2


def _signed(numbers: Sequence[int]) -> int:
    """0 to 3: these take 1, 2, 4 or 8 bytes."""
    most = max(max(numbers), ~min(numbers))
    return 0 if most < 1 << 7 else 1 if most < 1 << 15 else 2 if most < 1 << 31 else 3


def pack_series(series: Series) -> bytes:
    """How many tiles (u16); unless 0: widths (u8), the first tile's index (i32), each one's distance from it, each sum.

    The low half of the widths is that of the distances (0, 1, 2: u8, u16, u32), the high one that of the sums (0 to 3:
    i8 to i64).
    """
    tiles, sums = series
    if not tiles:
        return _U16.pack(0)
    first, wide, high = tiles[0], _unsigned(tiles[-1] - tiles[0]), _signed(sums)
    distances = array(_UNSIGNED[wide], [tile - first for tile in tiles])
    return _TILES.pack(len(tiles), wide | high << 4, first) + distances.tobytes() + array(_SIGNED[high], sums).tobytes()


def unpack_series(data: bytes, at: int) -> tuple[Series, int]:
    """The series that begins at `at`, and where it ends. Raises `ValueError`."""
    if data[at : at + 2] == b"\0\0":
        return (array("i"), array("q")), at + 2
    if at + _TILES.size > len(data):
        raise ValueError(f"a series is missing at {at} of {len(data)} bytes")
    n, widths, first = _TILES.unpack_from(data, at)
    wide, high = widths & 15, widths >> 4
    if wide > 2 or high > 3:
        raise ValueError(f"a series has widths {widths:#x}")
    at += _TILES.size
    middle = at + (n << wide)
    end = middle + (n << high)
    if end > len(data):
        raise ValueError(f"a series of {n} tiles does not fit into {len(data)} bytes")
    distances = array(_UNSIGNED[wide], data[at:middle])
    try:
        tiles = array("i", [first + distance for distance in distances])
    except OverflowError:
        raise ValueError(f"a series goes on beyond the last tile from {first} on") from None
    return (tiles, array("q", array(_SIGNED[high], data[middle:end]))), end


def pack_texts(texts: Iterable[str]) -> bytes:
    """The width of their lengths (0, 1, 2: u8, u16, u32), their lengths in bytes, their UTF-8."""
    encoded = [text.encode() for text in texts]
    lengths = list(map(len, encoded))
    wide = _unsigned(max(lengths, default=0))
    return bytes((wide,)) + array(_UNSIGNED[wide], lengths).tobytes() + b"".join(encoded)


def unpack_texts(data: bytes, at: int, count: int) -> list[str]:
    """The inverse of `pack_texts` for what lies from `at` to the end. Raises `ValueError`."""
    if at >= len(data) or data[at] > 2:
        raise ValueError(f"no texts begin at {at} of {len(data)} bytes")
    wide = data[at]
    start = at + 1 + (count << wide)
    if start > len(data):
        raise ValueError(f"{count} texts do not fit into {len(data)} bytes")
    ends = list(accumulate(array(_UNSIGNED[wide], data[at + 1 : start]), initial=start))
    if ends[-1] != len(data):
        raise ValueError(f"{count} texts end at {ends[-1]} of {len(data)} bytes")
    return [data[start:end].decode() for start, end in pairwise(ends)]

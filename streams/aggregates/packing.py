"""How slots become bytes: series of tiles, times and texts, their numbers in the fewest bytes that hold them all.

Little-endian. The same series gives the same bytes. `streams/kernel.pyx` reads and edits them as they lie here.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from struct import Struct

Series = tuple["array[int]", "array[int]"]
"""Sorted tile indices (i32) and what each tile holds (i64)."""

MOST_TILES = 4_095
MOST_TIMES = 65_535
I64 = Struct("<q")
_BYTE, _U16, _TILES, _TIMES = Struct("<B"), Struct("<H"), Struct("<Hi"), Struct("<HB")
_UNSIGNED, _SIGNED = "BHI", "bhiq"


def _unsigned(most: int) -> int:
    """0, 1 or 2: numbers up to `most` take 1, 2 or 4 bytes."""
    return 0 if most < 1 << 8 else 1 if most < 1 << 16 else 2


def _signed(numbers: Sequence[int]) -> int:
    """0 to 3: these take 1, 2, 4 or 8 bytes."""
    most = max(max(numbers), ~min(numbers))
    return 0 if most < 1 << 7 else 1 if most < 1 << 15 else 2 if most < 1 << 31 else 3


def pack_series(series: Series) -> bytes:
    """How many tiles and the widths (u16); unless 0: the first tile's index (i32), each distance from it, each sum.

    Twelve bits say how many, two how wide the distances are (0, 1, 2: u8, u16, u32), two how wide the sums (0 to 3: i8
    to i64).
    """
    tiles, sums = series
    if not tiles:
        return _U16.pack(0)
    if len(tiles) > MOST_TILES:
        raise ValueError(f"a series of {len(tiles)} tiles")
    first, wide, high = tiles[0], _unsigned(tiles[-1] - tiles[0]), _signed(sums)
    distances = array(_UNSIGNED[wide], [tile - first for tile in tiles])
    head = _TILES.pack(len(tiles) | wide << 12 | high << 14, first)
    return head + distances.tobytes() + array(_SIGNED[high], sums).tobytes()


def unpack_series(data: bytes, at: int) -> tuple[Series, int]:
    """The series that begins at `at`, and where it ends. Raises `ValueError`."""
    if data[at : at + 2] == b"\0\0":
        return (array("i"), array("q")), at + 2
    if at + _TILES.size > len(data):
        raise ValueError(f"a series is missing at {at} of {len(data)} bytes")
    head, first = _TILES.unpack_from(data, at)
    n, wide, high = head & MOST_TILES, head >> 12 & 3, head >> 14
    if wide > 2 or not n:
        raise ValueError(f"a series begins with {head:#x}")
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


def _span(times: Sequence[int]) -> int:
    """Bytes that tell apart times as far from each other as these: 5 (12 days), 6 (8 years) or 8."""
    apart = times[-1] - times[0]
    return 5 if apart < 1 << 40 else 6 if apart < 1 << 48 else 8


def pack_times(times: Sequence[int]) -> bytes:
    """How many (u16), how wide (u8), the low bytes of each; the newest, which is the last, goes on to its eighth.

    The others are what lies nearest before it.
    """
    n, wide, whole = len(times), _span(times), array("q", times).tobytes()
    lows = bytearray(n * wide)
    for k in range(wide):
        lows[k::wide] = whole[k::8]
    return _TIMES.pack(n, wide) + lows + whole[8 * n - 8 + wide :]


def unpack_times(data: bytes) -> tuple[list[int], int]:
    """Sorted times from the beginning on, and where they end. Raises `ValueError`."""
    if len(data) < _TIMES.size:
        raise ValueError(f"no times in {len(data)} bytes")
    n, wide = _TIMES.unpack_from(data)
    end = _TIMES.size + n * wide + 8 - wide
    if wide not in (5, 6, 8) or not n or end > len(data):
        raise ValueError(f"{n} times of {wide} bytes do not fit into {len(data)}")
    (newest,), whole = I64.unpack_from(data, end - 8), bytearray(data[end - 8 : end] * n)
    for k in range(wide):
        whole[k::8] = data[_TIMES.size + k : end - 8 + wide : wide]
    times = array("q", whole)  # as if all had the newest one's upper bytes
    return [time if time <= newest else time - (1 << 8 * wide) for time in times], end


def pack_size(size: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the eighth set."""
    packed = b""
    while size > 0x7F:
        packed += _BYTE.pack(size & 0x7F | 0x80)
        size >>= 7
    return packed + _BYTE.pack(size)


def unpack_size(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, below 2^35, and where it ends. Raises `ValueError`."""
    size = shift = 0
    for byte in data[at : at + 5]:
        at += 1
        if byte < 0x80:
            return size | byte << shift, at
        size |= (byte & 0x7F) << shift
        shift += 7
    raise ValueError(f"a size does not end at {at} of {len(data)} bytes")


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

"""How a row lies in Redis: Feast's own keys, fields and value bytes, written and read without importing Feast.

Importing Feast costs 700 MB and seconds, which neither the sink nor serving should pay for a few bytes of framing.
The tests compare every function here with Feast's own. Which row may replace which is left to
`feature_repo.compare_and_set`.
"""

from functools import cache
from struct import Struct
from typing import NamedTuple

import mmh3

from streams.events import Micros
from streams.profiles import Header, header

try:
    from streams.kernel import stored as stored_by_kernel
except ImportError:  # Python had no headers where Freshet was installed
    stored_by_kernel = None  # type: ignore[assignment]

PROJECT = "freshet"
"""Feast's project: the end of every key in Redis. `feature_store.yaml` says the same."""
VIEWS = {"user": "user_state", "item": "item_state"}
"""Profile name -> name of its feature view."""
STATE = {"user": "state", "item": "item_state"}
VERSION = {"user": "version", "item": "item_version"}
"""Profile name -> names of its view's two features. They differ as Feast joins views without prefixes."""

_PROJECT = PROJECT.encode()
_STRING = 2
"""`STRING` of Feast's `ValueType`."""
_U32, _RANK = Struct("<I"), Struct(">QQ")
_BYTES_TAG, _INT64_TAG = 0x0A, 0x20
"""Protobuf tags of `bytes_val` (field 1) and `int64_val` (field 4) in Feast's `Value`."""
_SECONDS_TAG, _NANOS_TAG = b"\x08", b"\x10"
"""Protobuf tags of `seconds` and `nanos` in `google.protobuf.Timestamp`."""
_SECOND: Micros = 1_000_000


class StoredRow(NamedTuple):
    """One row of a view, ready for Redis: its hash key, its rank, and the names and values of its other fields."""

    key: bytes
    rank: bytes
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]


class NoState(ValueError):
    """Bytes that should be a profile's state. Its arguments are their key and they."""


def entity_key(join_key: str, value: str) -> bytes:
    """The hash of one user or item (Feast's entity key serialization, version 3)."""
    text = value.encode()
    return _key_head(join_key) + _U32.pack(len(text)) + text + _PROJECT


@cache
def _key_head(join_key: str) -> bytes:
    name = join_key.encode()
    return b"".join((_U32.pack(1), _U32.pack(_STRING), _U32.pack(len(name)), name, _U32.pack(_STRING)))


@cache
def feature_field(view: str, feature: str) -> bytes:
    """The field of a feature: mmh3 of `view:feature`, little-endian."""
    return _U32.pack(mmh3.hash(f"{view}:{feature}", signed=False))


@cache
def time_field(view: str) -> bytes:
    """The field of Feast's event timestamp."""
    return f"_ts:{view}".encode()


@cache
def rank_field(view: str) -> bytes:
    """The field of a row's rank, which is ours; Feast's readers do not ask for it."""
    return f"_ver:{view}".encode()


def rank(version: int, event_time: Micros) -> bytes:
    """16 bytes that order the rows of one key: by version, then by time. A batch row without a version is below all."""
    return _RANK.pack(version + 1, event_time)


@cache
def state_field(profile: str) -> bytes:
    """The field of a profile's state."""
    return feature_field(VIEWS[profile], STATE[profile])


@cache
def version_field(profile: str) -> bytes:
    """The field of a profile's version."""
    return feature_field(VIEWS[profile], VERSION[profile])


def stored(profile: str, key: bytes, data: bytes, head: Header) -> StoredRow:
    """The row of a profile's state, `data`, whose header is `head`, under the hash `key`."""
    values = pack_time(head.event_time), pack_bytes(data), pack_int(head.version)
    return StoredRow(key, rank(head.version, head.event_time), _names(profile), values)


def stored_rows(profile: str, join_key: str, states: list[tuple[bytes, bytes]]) -> tuple[list[StoredRow], list[Micros]]:
    """The rows of (key, state) pairs of a profile, and when the newest event of each arrived. Raises `NoState`."""
    if stored_by_kernel is not None:
        try:
            return stored_by_kernel(StoredRow, _names(profile), _key_head(join_key), _PROJECT, states)
        except ValueError as error:
            raise NoState(*error.args) from None
    rows, arrivals = [], []
    for key, data in states:
        head = header(data)
        if head is None:
            raise NoState(key, data)
        rows.append(stored(profile, entity_key(join_key, key.decode()), data, head))
        arrivals.append(head.created)
    return rows, arrivals


@cache
def _names(profile: str) -> tuple[bytes, ...]:
    return time_field(VIEWS[profile]), state_field(profile), version_field(profile)


def pack_bytes(data: bytes) -> bytes:
    """Feast's `Value(bytes_val=data)`."""
    return bytes((_BYTES_TAG,)) + _varint(len(data)) + data


def unpack_bytes(message: bytes) -> bytes:
    """The inverse of `pack_bytes`. Raises `ValueError` when the message holds anything else."""
    if message[:1] != bytes((_BYTES_TAG,)):
        raise ValueError(
            f"a feature of bytes begins with {message[:1].hex() or 'nothing'}; was it written by another store?"
        )
    size, shift, at = 0, 0, 1
    while True:
        byte = message[at]
        size |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            break
    if len(message) != at + size:
        raise ValueError(f"a feature of {size} bytes lies in a message of {len(message)}")
    return message[at:]


def pack_int(number: int) -> bytes:
    """Feast's `Value(int64_val=number)`."""
    return bytes((_INT64_TAG,)) + _varint(number & ((1 << 64) - 1))


def pack_time(at: Micros) -> bytes:
    """Protobuf's `Timestamp` of an instant; zero fields are left out, as protobuf does."""
    seconds, micros = divmod(at, _SECOND)
    message = _SECONDS_TAG + _varint(seconds) if seconds else b""
    return message + _NANOS_TAG + _varint(micros * 1_000) if micros else message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

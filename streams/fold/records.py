"""What goes into a fold and what comes out of it: records, rows, the meta record, dead letters.

Only shapes and their bytes; the folds fill them, `streams.engine.owner` sends them.
"""

from typing import Self

import msgspec

META_KEY = b"\0meta"
ROW_MAX = 900_000
"""Bytes of the largest row: it must fit into one batch of the topic (1 MiB) with its key and Kafka's framing."""
DEAD_VALUE_MAX, DEAD_KEY_MAX = 512 * 1024, 64 * 1024
"""A dead letter quotes values up to this size, and so much of a key, which is its own key, too; base64 makes a third
more of both, and all must fit into a batch."""

Record = tuple[int, bytes | None, bytes | None]
"""(offset, key, value) as it is in Kafka or in the archive."""
Row = tuple[bytes | None, bytes | None]
"""(key, value) to write; a value of None deletes the key."""
State = tuple[bytes, bytes | None]
"""A row of a changelog, whose rows all have keys."""
Own = dict[bytes, bytes | None]
"""The engine's own records; None deletes one."""


class Meta(msgspec.Struct):
    """How far a state has come. JSON under `META_KEY`, written by the same transaction as the rows.

    `next_offset` is the first offset that is not folded yet (-1: nothing was ever read), `start_offset` the first that
    was. For `events`: applied + late + duplicate + rejected = next_offset - start_offset. `fingerprint` is the sum of
    the applied ids' 64-bit hashes, modulo 2**64. `passed` says how many applied events went to (in `user-features`) or
    came from (in `item-features`) each partition of the other stage.
    """

    start_offset: int = -1
    next_offset: int = -1
    applied: int = 0
    late: int = 0
    duplicate: int = 0
    rejected: int = 0
    fingerprint: int = 0
    passed: dict[int, int] = {}


class DeadLetter(msgspec.Struct):
    """A record that cannot be folded (or a row that cannot be written), with the reason. Bytes are base64 in JSON."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    value_bytes: int

    @classmethod
    def of(cls, topic: str, partition: int, offset: int, reason: str, key: bytes | None, value: bytes | None) -> Self:
        """A letter that fits into a batch: a value that is too large is left out, its size stays; a key is cut."""
        size, key = len(value or b""), key and key[:DEAD_KEY_MAX]
        return cls(topic, partition, offset, reason, key, value if size <= DEAD_VALUE_MAX else None, size)


encode_json = msgspec.json.Encoder().encode
decode_meta = msgspec.json.Decoder(Meta).decode

"""The ledger of a replay: how many of its records Kafka has acknowledged, so that it can go on where it stopped.

Records sent after the last entry are sent again; their event ids are the same, so the fold counts them once.
"""

import os
from pathlib import Path

import msgspec

from freshet.settings import Settings


class Entry(msgspec.Struct):
    """`sent` of `total` records; `shift_us` was added to every time, and must be the same when it goes on."""

    source: str
    sent: int
    total: int
    shift_us: int


class Ledger:
    """One file a replay, named by the fingerprint of everything that decides which records it sends."""

    def __init__(self, settings: Settings, fingerprint: str) -> None:
        self.path: Path = settings.home / "replay" / f"{settings.topic_prefix}{fingerprint}.json"

    def read(self) -> Entry | None:
        """Where the replay stopped; None when it never ran."""
        return msgspec.json.decode(self.path.read_bytes(), type=Entry) if self.path.exists() else None

    def write(self, entry: Entry) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(entry))
        fresh.replace(self.path)

    def forget(self) -> None:
        """Begin at the start next time."""
        self.path.unlink(missing_ok=True)

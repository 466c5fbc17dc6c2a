"""The player: sends a source's items and events to Kafka, in order, at a chosen speed, and goes on where it stopped.

Which events, in which order, at which times is decided in `interactions`; formats are read by the sources.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from aiokafka import AIOKafkaConsumer

from freshet.settings import Settings
from streams import events
from streams.catalogue import Item, Progress, send_items
from streams.events import Event, Micros
from streams.publisher import Publisher, Record
from streams.replay.interactions import BadSource, Interactions, Source, Timeline, event_ids, timeline
from streams.replay.ledger import Entry, Ledger
from streams.topics import EVENTS

CHUNK = 5_000
"""Records between two entries in the ledger: what is sent twice at most when a replay is killed."""
TICK_S = 0.02
"""At a limited speed, what falls due within this long is sent together."""


class ReplayReport(msgspec.Struct, frozen=True):
    """What a replay did. Records are events and duplicates; `already` of them had been sent by an earlier run."""

    source: str
    items: int
    records: int
    already: int
    duplicates: int
    first: Micros | None
    last: Micros | None
    seconds: float

    @property
    def per_second(self) -> float:
        """Records a second of this run."""
        return (self.records - self.already) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Line:
    """Everything that a record is made of, by its place in the timeline."""

    interactions: Interactions
    line: Timeline
    source: Source
    items: dict[str, Item]

    def records(self, first: int, last: int) -> list[Record]:
        """The records of places first to last - 1. Raises `BadSource` where a row makes no event that a fold takes."""
        i, part = self.interactions, self.line.pick(slice(first, last))
        rows, ids = part.rows, event_ids(i, part, self.source.prefix, self.source.repeats)
        users = [i.users.names[c] for c in i.users.codes[rows].tolist()]
        items = [i.items.names[c] for c in i.items.codes[rows].tolist()]
        types = [i.types.names[c] for c in i.types.codes[rows].tolist()]
        given = [math.nan] * len(rows) if i.values is None else i.values[rows].tolist()
        values = [None if math.isnan(value) else value for value in given]
        records = []
        for n, (row, at) in enumerate(zip(rows.tolist(), part.times.tolist(), strict=True)):
            known = self.items.get(items[n])
            event = Event(
                event_id=ids[n], user_id=users[n], item_id=items[n], type=types[n],
                event_time=at, arrival=at, value=values[n],
                categories=(i.categories[row] if i.categories else ()) or (known.categories if known else ()),
                session_id=i.sessions[row] if i.sessions else None,
                properties=(i.properties[row] if i.properties else None) or {},
            )  # fmt: skip
            try:
                events.check(event, 0)
            except events.BadEvent as error:
                raise BadSource(
                    f"row {row + 1} (user {users[n]!r}, item {items[n]!r}) makes no event: {error}"
                ) from None
            records.append((users[n].encode(), events.encode(event)))
        return records


def replay(
    settings: Settings, source: Source, speed: float | None = None, start: Micros | None = None,
    end: Micros | None = None, resume: bool = True, progress: Progress | None = None, *,
    duplicates: float = 0.0, seed: int = 0, rebase_to: Micros | None = None,
) -> ReplayReport:  # fmt: skip
    """`play`, for callers without an event loop."""
    return asyncio.run(
        play(
            settings, source, speed, start, end, resume, progress, duplicates=duplicates, seed=seed, rebase_to=rebase_to
        )
    )


async def play(
    settings: Settings, source: Source, speed: float | None = None, start: Micros | None = None,
    end: Micros | None = None, resume: bool = True, progress: Progress | None = None, *,
    duplicates: float = 0.0, seed: int = 0, rebase_to: Micros | None = None,
) -> ReplayReport:  # fmt: skip
    """Send a source's items, then its events with start <= event time < end (in the source's own times).

    `speed` is how many seconds of history pass in one second; None: as fast as Kafka takes them. `duplicates` is the
    share of events sent twice, chosen by `seed`. `rebase_to` moves all times so that the last event is at that instant.
    With `resume`, a replay that was stopped goes on, and one that was finished sends nothing.
    Raises `BadSource`, `PublishError`.
    """
    began = time.monotonic()
    if speed is not None and not speed > 0:
        raise ValueError(f"speed must be positive, not {speed}; leave it away for as fast as possible")
    items = {item.item_id: item for item in source.items()}
    interactions = source.interactions()
    line = timeline(interactions).between(start, end)
    plain = len(line)
    if not plain:
        raise BadSource("no event lies between the two dates" if len(interactions) else "the source holds no event")
    line = line.with_duplicates(duplicates, seed)
    parts = (source.fingerprint(), start, end, duplicates, seed if duplicates else 0, rebase_to is not None)
    ledger = Ledger(settings, blake2b(repr(parts).encode(), digest_size=12).hexdigest())
    if not resume:
        ledger.forget()
    last = int(line.times.max())
    entry = ledger.read() or Entry(source.name, 0, len(line), 0 if rebase_to is None else rebase_to - last)
    already = entry.sent
    await _check_ledger(settings, entry, ledger)
    line = line.shifted(entry.shift_us)
    made = _Line(interactions, line, source, items)
    if already < len(line):
        async with Publisher(settings) as publisher:
            await send_items(publisher, items.values(), progress)
            started = time.monotonic()
            for first, end_of_chunk in _chunks(line, already, speed):
                if speed is not None:
                    await asyncio.sleep(_due(line, already, first, speed) - (time.monotonic() - started))
                await publisher.send(EVENTS, made.records(first, end_of_chunk))
                entry.sent = end_of_chunk
                ledger.write(entry)
                if progress:
                    progress("events", end_of_chunk, len(line))
    return ReplayReport(
        source=source.name, items=len(items), records=len(line), already=already, duplicates=len(line) - plain,
        first=int(line.times[0]), last=int(line.times.max()), seconds=time.monotonic() - began,
    )  # fmt: skip


def _chunks(line: Timeline, first: int, speed: float | None) -> Iterator[tuple[int, int]]:
    """Places [from, to) that are sent together."""
    while first < len(line):
        last = min(first + CHUNK, len(line))
        if speed is not None:
            due = line.times[first] + int(TICK_S * speed * 1_000_000)
            while last > first + 1 and line.times[last - 1] > due:
                last = first + max(1, (last - first) // 2)
        yield first, last
        first = last


def _due(line: Timeline, begun: int, place: int, speed: float) -> float:
    """Seconds from the start of this run at which a place is due."""
    return float(line.times[place] - line.times[begun]) / 1_000_000 / speed


async def _check_ledger(settings: Settings, entry: Entry, ledger: Ledger) -> None:
    """A ledger of a cluster that has been emptied since would silently leave events out."""
    if not entry.sent:
        return
    consumer = AIOKafkaConsumer(settings.topic(EVENTS), bootstrap_servers=settings.kafka, enable_auto_commit=False)
    try:
        await consumer.start()
        there = sum((await consumer.end_offsets(consumer.assignment())).values())
    finally:
        await consumer.stop()
    if there < entry.sent:
        raise BadSource(
            f"{ledger.path} says that {entry.sent} records were sent, but topic {settings.topic(EVENTS)!r} has only "
            f"had {there}: was Kafka emptied since? Replay without resuming to begin again"
        )

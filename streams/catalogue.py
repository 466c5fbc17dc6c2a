"""The catalogue: what is known of each item, in memory, fed from the compacted `items` topic.

Ingest fills categories in from it, serving takes titles from it, replay and simulate write it. How items are accepted
over HTTP is left to `streams.ingest`; what an item's events add up to is left to the item profile.
"""

import asyncio
import csv
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from freshet.settings import Settings
from streams.events import CATEGORIES_MAX, CATEGORY_MAX_CHARS, ID_MAX_BYTES, BadEvent, Micros, instant
from streams.publisher import Publisher, Record
from streams.topics import ITEMS

Progress = Callable[[str, int, int | None], None]
"""Called with a label, how much is done, and of how much (None: not known)."""

TITLE_MAX, DESCRIPTION_MAX, IMAGE_MAX = 512, 8_192, 16_384
"""Characters. An image is an address or a small `data:` URI."""
RETRY_S = 1.0
POLL_MS = 200
CHUNK = 2_000

log = logging.getLogger(__name__)


class BadItem(ValueError):
    """An item that is refused. Its text says which field is wrong and what would be right."""


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that can be recommended. `created_at` is in microseconds; None where it is not known."""

    item_id: str
    title: str
    categories: tuple[str, ...] = ()
    description: str | None = None
    image: str | None = None
    created_at: Micros | None = None


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Item).decode
_FIELDS = frozenset(Item.__struct_fields__)


def accept(raw: Mapping[str, Any]) -> Item:
    """Make an item of what a client sent. `created_at` may be an RFC 3339 string or Unix seconds. Raises `BadItem`."""
    unknown = raw.keys() - _FIELDS
    if unknown:
        raise BadItem(f"unknown field {sorted(unknown)[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    fields = {k: v for k, v in raw.items() if v is not None}
    try:
        if "created_at" in fields:
            fields["created_at"] = instant(fields["created_at"])
        item = msgspec.convert(fields, Item)
    except BadEvent as error:
        raise BadItem(str(error).replace("event_time", "created_at")) from None
    except msgspec.ValidationError as error:
        raise BadItem(str(error)) from None
    check(item)
    return item


def check(item: Item) -> None:
    """The rules that hold for every item. Raises `BadItem`."""
    if (
        not item.item_id
        or len(item.item_id.encode("utf-8", "surrogatepass")) > ID_MAX_BYTES
        or not item.item_id.isprintable()
    ):
        raise BadItem(f"item_id must be 1 to {ID_MAX_BYTES} bytes of printable text")
    if not 0 < len(item.title) <= TITLE_MAX:
        raise BadItem(f"title must have 1 to {TITLE_MAX} characters")
    if len(item.categories) > CATEGORIES_MAX or any(not 0 < len(c) <= CATEGORY_MAX_CHARS for c in item.categories):
        raise BadItem(f"categories: at most {CATEGORIES_MAX}, each of 1 to {CATEGORY_MAX_CHARS} characters")
    for name, text, most in (("description", item.description, DESCRIPTION_MAX), ("image", item.image, IMAGE_MAX)):
        if text is not None and len(text) > most:
            raise BadItem(f"{name} must have at most {most} characters")


def record(item: Item) -> Record:
    """The item's record in the `items` topic."""
    return item.item_id.encode(), encode(item)


async def send_items(publisher: Publisher, items: Iterable[Item], progress: Progress | None = None) -> int:
    """Write items to the `items` topic. Returns how many, once all are acknowledged. Raises `PublishError`."""
    done, source = 0, iter(items)
    while chunk := list(islice(source, CHUNK)):
        await publisher.send(ITEMS, [record(item) for item in chunk])
        done += len(chunk)
        if progress:
            progress("items", done, None)
    return done


def read_items(path: Path) -> Iterator[Item]:
    """The items of a JSON-lines file (`.jsonl`, `.ndjson`) or a CSV file with a header, fields as in `Item`.

    In CSV, several categories are separated by `|`. Raises `BadItem` with the line.
    """
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows: Iterator[tuple[int, Any]] = (
            enumerate(csv.DictReader(lines), 2) if path.suffix == ".csv" else enumerate(lines, 1)
        )
        for number, row in rows:
            if isinstance(row, str) and not row.strip():
                continue
            try:
                yield accept(_of_csv(row) if isinstance(row, dict) else msgspec.json.decode(row, type=dict[str, Any]))
            except (BadItem, msgspec.DecodeError) as error:
                raise BadItem(f"{path}, line {number}: {error}") from None


def _of_csv(row: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {k: v for k, v in row.items() if v}
    if "categories" in fields:
        fields["categories"] = fields["categories"].split("|")
    return fields


async def import_file(settings: Settings, path: Path, progress: Progress | None = None) -> int:
    """Write the items of a file (see `read_items`). Returns how many. Raises `BadItem`, `PublishError`."""
    async with Publisher(settings) as publisher:
        return await send_items(publisher, read_items(path), progress)


class Catalogue:
    """All items, kept up to date by a background task. Reading never waits and never fails.

    `ready` is set once everything that was in the topic when the task began has been read. Kafka may come and go: what
    is known stays, and the task connects again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._items: dict[str, Item] = {}
        self._task: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.version = 0
        """Grows with every change: cheap to compare for whoever derives something from the items."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to follow the topic."""
        self._task = asyncio.create_task(self._follow(), name="catalogue")

    async def stop(self) -> None:
        """End the background task. What is known stays."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def __len__(self) -> int:
        return len(self._items)

    def get(self, item_id: str) -> Item | None:
        """The item, or None when it is not known."""
        return self._items.get(item_id)

    def categories(self, item_id: str) -> tuple[str, ...]:
        """The item's categories; none when it is not known."""
        item = self._items.get(item_id)
        return item.categories if item else ()

    def titles(self) -> dict[str, str]:
        """The title of every item, by its id."""
        return {item_id: item.title for item_id, item in self._items.items()}

    def all(self) -> Mapping[str, Item]:
        """Every item by its id: a live view, to be read and not kept across an await."""
        return self._items

    def put(self, item: Item) -> None:
        """Take an item in that this process has just written, before it comes back from the topic."""
        self._items[item.item_id] = item
        self.version += 1

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                log.warning("catalogue: Kafka at %s: %r; trying again", self._settings.kafka, error)
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            self._settings.topic(ITEMS),
            bootstrap_servers=self._settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await consumer.start()  # without a group: every partition is ours
            partitions = consumer.assignment()
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(partitions)
            behind = {p for p in partitions if ends[p] > 0}
            while True:
                if not behind:
                    self.ready.set()
                for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=10_000)).values():
                    for entry in records:
                        self._apply(entry.key, entry.value)
                # a compacted tail may hold no record any more: then only the position tells
                behind = {p for p in behind if await consumer.position(p) < ends[p]}
        finally:
            await consumer.stop()

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        self.version += 1
        if key is not None and value is None:
            self._items.pop(key.decode("utf-8", "replace"), None)
            return
        try:
            item = _decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("catalogue: a record of the items topic is no item and is left out: key %r: %s", key, error)
            return
        self._items[item.item_id] = item


async def read_catalogue(settings: Settings, patience_s: float = 30.0) -> dict[str, Item]:
    """The whole catalogue as it is now. Raises `TimeoutError` when Kafka does not answer."""
    async with Catalogue(settings) as catalogue, asyncio.timeout(patience_s):
        await catalogue.ready.wait()
        return dict(catalogue.all())

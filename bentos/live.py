"""What serving keeps in memory: all items' states, followed from their topic, and the matrix of the last closed tile.

The matrix is computed once a tile on a thread of its own, and swapped as one reference, so answering never waits for
it. Titles and categories come from `streams.catalogue`; users are read from the online store.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from bentos.inputs import ItemMatrix, ItemTable
from freshet.settings import Settings
from streams.catalogue import Catalogue
from streams.events import Micros, now
from streams.profiles import header, is_meta_key, t_item
from streams.topics import ITEM_FEATURES

RETRY_S = 1.0
POLL_MS = 200
REFRESH_S = 5.0
"""States that came in after their tile had closed (a backlog, a replay) are read this often; others read the same."""
CHECK_S = 0.5
"""How often to look whether a tile has closed or an item was added."""

log = logging.getLogger(__name__)


class LiveItems:
    """Follows `item-features` and the catalogue. `matrix` is the newest one; empty until the first is computed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.catalogue = Catalogue(settings)
        self._table = ItemTable()
        self._arrived: dict[str, bytes] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="item-matrix")
        self._tasks: list[asyncio.Task[None]] = []
        self.matrix: ItemMatrix = self._table.at(t_item(now()))
        self._described = 0
        self.ready = asyncio.Event()
        """Set once everything that was in the topics at the start is in the matrix."""
        self._read_all = asyncio.Event()
        self.newest: Micros = 0
        """Arrival of the newest event that any item state holds."""

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        self.catalogue.start()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """End the background tasks."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.catalogue.stop()
        self._thread.shutdown(wait=False)

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                log.warning("item states: Kafka at %s: %r; trying again", self._settings.kafka, error)
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            self._settings.topic(ITEM_FEATURES),
            bootstrap_servers=self._settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            await consumer.start()
            ends = await consumer.end_offsets(consumer.assignment())
            await consumer.seek_to_beginning()
            behind = {p for p, end in ends.items() if end > 0}
            while True:
                if not behind:
                    self._read_all.set()
                for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=10_000)).values():
                    for record in records:
                        if record.key is not None and not is_meta_key(record.key) and record.value is not None:
                            self._arrive(record.key.decode(), record.value)
                behind = {p for p in behind if await consumer.position(p) < ends[p]}
        finally:
            await consumer.stop()

    def _arrive(self, item_id: str, row: bytes) -> None:
        self._arrived[item_id] = row
        head = header(row)
        if head is not None:
            self.newest = max(self.newest, head.created)

    async def _keep(self) -> None:
        """Compute the matrix when a tile has closed, items were described, after a backlog, and when all is read."""
        loop, computed = asyncio.get_running_loop(), 0.0
        while True:
            tile, described = t_item(now()), self.catalogue.version
            first = self._read_all.is_set() and self.catalogue.ready.is_set() and not self.ready.is_set()
            behind = bool(self._arrived) and monotonic() - computed > REFRESH_S
            if first or behind or tile > self.matrix.tile or described != self._described:
                computed = monotonic()
                rows, self._arrived = self._arrived, {}
                items = {i: item.categories for i, item in self.catalogue.all().items()}
                self.matrix = await loop.run_in_executor(self._thread, self._compute, rows, items, tile)
                self._described = described
                if first:
                    self.ready.set()
            await asyncio.sleep(CHECK_S)

    def _compute(self, rows: dict[str, bytes], items: dict[str, tuple[str, ...]], tile: Micros) -> ItemMatrix:
        for item_id, row in rows.items():
            self._table.put(item_id, row)
        for item_id, categories in items.items():
            self._table.describe(item_id, categories)
        return self._table.at(tile)

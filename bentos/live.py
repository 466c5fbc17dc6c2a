"""What serving keeps in memory: all items' states, followed from their topic, and the matrix of the last closed tile.

The matrix is computed once a tile on a thread of its own, and swapped as one reference, so answering never waits for
it. Titles and categories come from `streams.catalogue`; users are read from the online store.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from bentos import heap
from bentos.inputs import Floats, ItemMatrix, ItemTable
from bentos.meters import ITEM_TILE
from bentos.stages.recall import heat, trending
from feature_repo.features import item as item_profile
from freshet.settings import Settings
from streams.catalogue import Catalogue, Item
from streams.events import Micros, now
from streams.profiles import header, is_meta_key
from streams.tiled import t_item
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

    def __init__(self, settings: Settings, prepare: Callable[[ItemMatrix], None]) -> None:
        """`prepare` is given each matrix on the thread that computed it, before it serves."""
        self._settings = settings
        self._prepare = prepare
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
        self.seen = False
        """Whether any item has an event."""
        self._hot: dict[str, float] = {}
        """Items with events in the open tile, and their heat with it."""

    def heat(self) -> Floats:
        """How much is liked lately, per row of `matrix`, the open tile included. float32 [n]."""
        items = self.matrix
        score = trending(items)
        for item_id, hot in self._hot.items():
            row = items.index.get(item_id)
            if row is not None:
                score[row] = hot
        return score

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
                            self._arrived[record.key.decode()] = record.value
                behind = {p for p in behind if await consumer.position(p) < ends[p]}
        finally:
            await consumer.stop()

    async def _keep(self) -> None:
        """Compute the matrix when a tile has closed, items were described, after a backlog, and when all is read."""
        computed = 0.0
        while True:
            tile, described = t_item(now()), self.catalogue.version
            first = self._read_all.is_set() and self.catalogue.ready.is_set() and not self.ready.is_set()
            behind = bool(self._arrived) and monotonic() - computed > REFRESH_S
            if first or behind or tile > self.matrix.tile or described != self._described:
                computed = monotonic()
                rows, self._arrived = self._arrived, {}
                try:
                    await self._swap(rows, tile)
                except Exception:  # the old matrix serves on: stale is better than gone, and the log says why
                    log.exception("the item matrix of tile %d could not be computed", tile)
                self._described = described
                if first:
                    self.ready.set()
            await asyncio.sleep(CHECK_S)

    async def _swap(self, rows: dict[str, bytes], tile: Micros) -> None:
        items = list(self.catalogue.all().values())
        opened = self._hot if tile == self.matrix.tile else {}
        compute = asyncio.get_running_loop().run_in_executor(self._thread, self._compute, rows, items, tile, opened)
        self.matrix, self._hot = await compute
        ITEM_TILE.set(tile / 1e6)
        self.seen = self.seen or bool(rows)

    def _compute(
        self, rows: dict[str, bytes], items: list[Item], tile: Micros, opened: dict[str, float]
    ) -> tuple[ItemMatrix, dict[str, float]]:
        for item_id, row in rows.items():
            self._table.put(item_id, row)
        for item in items:
            self._table.describe(item)
        heap.keep_apart(len(self._table))
        matrix, at = self._table.at(tile), now()
        hot = {i: _heat(row, at) for i, row in rows.items() if _newest(row) >= tile}
        try:
            self._prepare(matrix)
        except Exception:  # what it prepares for may fail on these items; answering then says so in each answer
            log.exception("nothing could be prepared on the item matrix of tile %d", tile)
        return matrix, opened | hot


def _newest(row: bytes) -> Micros:
    head = header(row)
    return 0 if head is None else head.newest


def _heat(row: bytes, at: Micros) -> float:
    live = item_profile.live_values(row, at)
    return float(heat(live["likes_1h"], live["likes_24h"], live["likes_7d"]))

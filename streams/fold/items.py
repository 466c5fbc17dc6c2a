"""The fold of `item-deltas`: item rows."""

from collections.abc import Iterable

from feature_repo.features import item
from streams.fold import deltas
from streams.fold.records import Record
from streams.fold.states import Gap, ProfileFold, Touched
from streams.tiled import TiledProfile
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES


class ItemFold(ProfileFold[TiledProfile]):
    """`item-deltas` of one partition into item rows. `meta.applied` counts events; none is late or a duplicate.

    Transactions leave marks in a topic, so its offsets rise without being contiguous; the deltas' own numbers are.
    """

    source, log = ITEM_DELTAS, ITEM_FEATURES

    def __init__(self, partition: int) -> None:
        super().__init__(item, partition)
        if item.kernel is not None:
            self._compiled = item.kernel.items()

    def fold_plainly(self, records: Iterable[Record]) -> None:
        """The offset of a delta becomes the version of the rows that it changes."""
        touched: dict[bytes, Touched] = {}
        for record in records:
            offset = record[0]
            self.expect(offset)
            self.meta.next_offset = offset + 1
            delta = self.read(record)
            if delta is None:
                continue
            self.take_up(delta.source, delta.first, len(delta.events))
            for event in delta.events:
                key = event.item_id.encode()
                mine = touched.get(key)
                if mine is None:
                    mine = touched[key] = Touched(self.rows.get(key), 0)
                mine.events.append(event)
                mine.version = offset
        for key, mine in touched.items():
            self._advance(key, mine.row, mine.events, mine.version)

    def expect(self, offset: int) -> None:
        """Raises `Gap` for an offset that was passed."""
        if offset < self.meta.next_offset:
            raise Gap(f"{self._here}: offset {offset} came after {self.meta.next_offset - 1}")
        self.begin(offset)

    def read(self, record: Record) -> deltas.Delta | None:
        """The delta of a record; None where it is rejected."""
        try:
            return deltas.decode(record[2] or b"")
        except deltas.BadDelta as error:
            self._reject(record, str(error))
            return None

    def take_up(self, source: int, first: int, count: int) -> None:
        """Count a delta's events. Raises `Gap` where they do not follow the ones before."""
        had = self.meta.passed.get(source, 0)
        if first != had:
            raise Gap(f"{self._here}: expected event {had} of {EVENTS} partition {source}, got {first}")
        self.meta.passed[source] = had + count
        self.meta.applied += count

    @property
    def _here(self) -> str:
        return f"{self.source} partition {self.partition}"

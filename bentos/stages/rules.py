"""House rules: what those who run the place say of every answer, whatever the models think. Read by `bentos.house`.

Hidden items never come; hopes of a conversion, boosts, burials, novelty and freshness move scores before variety is
made; a cap bounds how many of a category come; the long tail gets a least share of the exposure
(`bentos.stages.exposure`); and pins take their positions last (`bentos.cascade.pinned`).
"""

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices, ItemMatrix
from bentos.stages.novelty import freshness, novelty

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
MOST_PINS = 20


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items by their ids, and all items of some categories."""

    items: frozenset[Text] = frozenset()
    categories: frozenset[Text] = frozenset()

    def rows(self, items: ItemMatrix) -> npt.NDArray[np.bool_]:
        """Which rows of the matrix. bool [n]."""
        columns = [j for j, name in enumerate(items.category_names) if name in self.categories]
        found = np.asarray(items.categories[:, columns].any(1))
        found[[row for i in self.items if (row := items.index.get(i)) is not None]] = True
        return found


class Boost(Which, frozen=True):
    """Adds `by` spreads (standard deviations) of the candidates' scores; below 0 it buries."""

    by: Annotated[float, msgspec.Meta(ge=-10, le=10)] = 0.0


class Freshness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adds `by` spreads of the candidates' scores to what has just come to be, half as much after each half-life."""

    by: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    half_life_hours: Annotated[float, msgspec.Meta(gt=0, le=8_760)] = 24.0


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item at a position, 1 being the first, wherever it may come at all."""

    item_id: Text
    position: Annotated[int, msgspec.Meta(ge=1, le=100)]


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, eq=False, weakref=True):
    """All rules. `mark` tells one set of them from another; "" for none.

    `novelty`: spreads of the candidates' scores that an item gains for each spread of its novelty (`stages.novelty`).
    """

    hide: Which = Which()
    boost: tuple[Boost, ...] = ()
    pin: Annotated[tuple[Pin, ...], msgspec.Meta(max_length=MOST_PINS)] = ()
    most_per_category: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    conversion_weight: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.0
    novelty: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    freshness: Freshness = Freshness()
    least_tail_exposure: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    mark: str = ""

    def __post_init__(self) -> None:
        """An answer has an item once. Raises `ValueError`, which reading a file turns into its own."""
        pinned = [pin.item_id for pin in self.pin]
        for item_id in pinned:
            if pinned.count(item_id) > 1:
                raise ValueError(f"item {item_id!r} is pinned twice")

    def hidden(self, items: ItemMatrix) -> npt.NDArray[np.bool_]:
        """Which rows never come. bool [n]."""
        return self._of(items)[0]

    @property
    def leans(self) -> bool:
        """Whether any item gains or loses anything."""
        return bool(self.boost or self.novelty or self.freshness.by)

    def gains(self, items: ItemMatrix, rows: Indices) -> Floats:
        """What each candidate gains, in spreads. float32 [len(rows)]."""
        gains: Floats = self._of(items)[1][rows]
        if self.novelty or self.freshness.by:
            fresh = freshness(items, rows, self.freshness.half_life_hours)
            gains = gains + self.leaning(novelty(items)[rows], fresh)
        return gains

    def leaning(self, bits: npt.NDArray[np.float64], fresh: Floats) -> Floats:
        """The part of it that comes of their novelty and freshness. float32 [m]."""
        spread = float(bits.std()) or 1.0
        gains = self.novelty * (bits - bits.mean()) / spread + self.freshness.by * fresh
        leaning: Floats = gains.astype(np.float32)
        return leaning

    def _of(self, items: ItemMatrix) -> tuple[npt.NDArray[np.bool_], Floats]:
        def make() -> tuple[npt.NDArray[np.bool_], Floats]:
            gains = np.zeros(len(items), dtype=np.float32)
            for boost in self.boost:
                gains[boost.rows(items)] += np.float32(boost.by)
            return self.hide.rows(items), gains

        made: tuple[npt.NDArray[np.bool_], Floats] = items.derive(self, make)
        return made


NONE = Rules()

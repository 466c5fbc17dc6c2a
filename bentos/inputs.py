"""What the models see: the values of all items at one closed tile, and one row of numbers per candidate.

`ItemTable` follows item states and gives an `ItemMatrix` for a tile: serving feeds it from the topic, training from the
offline store, so both see the same numbers. `candidate_rows` joins user values, item values and recall scores. Where
the states come from is left to `bentos.live` and `training.datasets`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from streams.aggregates import EVER, SECOND
from streams.catalogue import Item
from streams.events import Micros

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

USER_COLUMNS = tuple(c.name for c in user_profile.columns if c.dtype in ("int64", "float64"))
ITEM_COLUMNS = tuple(c.name for c in item_profile.columns if c.dtype in ("int64", "float64"))
RANKED_COLUMNS = tuple(name for name in ITEM_COLUMNS if not name.startswith("impressions"))
"""What ranking is told of an item. How often it was shown is our own doing: each new model changes what it means."""
_RANKED = [ITEM_COLUMNS.index(name) for name in RANKED_COLUMNS]
_ITEM_INTEGERS = tuple(c.name for c in item_profile.columns if c.dtype == "int64")
_INTEGERS_AT = [ITEM_COLUMNS.index(name) for name in _ITEM_INTEGERS]
_ITEM_DEFAULTS = np.array([c.default for c in item_profile.columns if c.name in ITEM_COLUMNS], dtype=np.float64)
_CAPS = {c.name: c.default for f in item_profile.features if f.ageing for c in f.columns}


@dataclass(frozen=True, eq=False)
class ItemMatrix:
    """Every known item at one closed tile. Rows are items, in the order of `ids`; nothing here changes.

    `values`: float64 [n, len(ITEM_COLUMNS)]; `categories`: float32 [n, len(category_names)], 1 where the item has it;
    `described`: what the catalogue says of each row, None where that is nothing.
    """

    tile: Micros
    ids: tuple[str, ...]
    index: Mapping[str, int]
    values: npt.NDArray[np.float64]
    category_names: tuple[str, ...]
    categories: Floats
    described: Sequence[Item | None]
    kept: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary, repr=False)
    """What others derive from the list of items alone; the next tile's matrix shares it while the list is the same."""
    of_tile: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """One column of all items, float64 [n]."""
        values: npt.NDArray[np.float64] = self.values[:, ITEM_COLUMNS.index(name)]
        return values

    def values_of(self, row: int) -> dict[str, int | float]:
        """The values of one item by column name, integers as integers: what is logged and compared with training."""
        return self.values_of_each([row])[0]

    def values_of_each(self, rows: Sequence[int]) -> list[dict[str, int | float]]:
        """The same of several items."""
        values = self.values[list(rows)]
        integers = values[:, _INTEGERS_AT].astype(np.int64).tolist()
        return [
            dict(zip(ITEM_COLUMNS, all_, strict=True)) | dict(zip(_ITEM_INTEGERS, whole, strict=True))
            for all_, whole in zip(values.tolist(), integers, strict=True)
        ]

    @property
    def category_sets(self) -> tuple[Floats, Indices]:
        """The sets of categories that items have, float32 [sets, len(category_names)], and which of them each has, [n].

        Many items share few sets. Sets of nothing make their number a multiple of four (`nearest.products`).
        """
        sets: tuple[Floats, Indices] = self.derive(_sets, lambda: _sets(self.categories))
        return sets

    def categories_of(self, row: int) -> tuple[str, ...]:
        """The names of an item's categories, found when it is first shown: most items are not."""
        known: dict[int, tuple[str, ...]] = self.derive(ItemMatrix.categories_of, dict)
        if row not in known:
            known[row] = tuple(self.category_names[j] for j in self.categories[row].nonzero()[0])
        return known[row]

    def derive(self, owner: object, make: Callable[[], Any]) -> Any:
        """What `owner` derives from the list of items, made once for each list. It goes when the owner does.

        A bundle that has been replaced would otherwise stay, with all that it derived, until an item is added.
        """
        try:
            return self.kept[owner]
        except KeyError:
            made = self.kept[owner] = make()
            return made

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What is derived from the values too, made once for this matrix."""
        if name not in self.of_tile:
            self.of_tile[name] = make()
        return self.of_tile[name]


def _sets(categories: Floats) -> tuple[Floats, Indices]:
    packed = np.packbits(categories > 0, axis=1)
    packed = np.concatenate([packed, np.zeros((len(packed), 1), dtype=np.uint8)], 1)  # a set of no bytes is none
    _, first, of = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    sets = np.zeros((-(-len(first) // 4) * 4, categories.shape[1]), dtype=np.float32)
    sets[: len(first)] = categories[first]
    return sets, of


class ItemTable:
    """Item states and descriptions as they come in; `at(tile)` reads them all, recomputing only what changed."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._rows: list[bytes] = []
        """Empty for an item without an event."""
        self._items: list[Item | None] = []
        self._values = np.empty((0, len(ITEM_COLUMNS)))
        self._born = np.empty((0, len(_CAPS)), dtype=np.int64)
        self._until = np.empty(0, dtype=np.int64)
        self._ageing = [ITEM_COLUMNS.index(name) for name in _CAPS]
        self._caps = np.array([round(cap * SECOND) for cap in _CAPS.values()], dtype=np.int64)
        self._matrix: ItemMatrix | None = None
        self._described = False

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, item_id: str) -> int:
        row = self._index.get(item_id)
        if row is None:
            row = self._index[item_id] = len(self._rows)
            self._rows.append(b"")
            self._items.append(None)
            self._described = False
            if row >= len(self._until):
                self._grow(max(64, 2 * row))
        return row

    def _grow(self, size: int) -> None:
        more = size - len(self._until)
        self._values = np.concatenate([self._values, np.tile(_ITEM_DEFAULTS, (more, 1))])
        self._born = np.concatenate([self._born, np.full((more, len(_CAPS)), -(1 << 62), dtype=np.int64)])
        self._until = np.concatenate([self._until, np.full(more, EVER, dtype=np.int64)])

    def put(self, item_id: str, state: bytes) -> None:
        """The newest state of an item."""
        row = self._row(item_id)
        self._rows[row] = state
        self._until[row] = 0

    def describe(self, item: Item) -> None:
        """What the catalogue says of an item."""
        row = self._row(item.item_id)
        if self._items[row] != item:
            self._items[row] = item
            self._described = False

    def rows(self) -> Iterable[tuple[str, bytes]]:
        """Every state that was put, by item."""
        return ((i, state) for i, row in self._index.items() if (state := self._rows[row]))

    def at(self, tile: Micros) -> ItemMatrix:
        """Every item as of a tile's end. Tiles must not go back: states are read forward."""
        n = len(self._rows)
        for row in np.flatnonzero(self._until[:n] <= tile).tolist():
            read, until = item_profile.reading(self._rows[row], tile)
            self._values[row] = [read[name] for name in ITEM_COLUMNS]
            ages = [round(read[name] * SECOND) for name in _CAPS]
            self._born[row] = tile - np.array(ages, dtype=np.int64)
            self._until[row] = until
        values = self._values[:n].copy()
        values[:, self._ageing] = np.minimum(tile - self._born[:n], self._caps) / SECOND
        if self._matrix is None or not self._described:
            categories = [() if item is None else item.categories for item in self._items]
            names = tuple(sorted({c for of in categories for c in of}))
            column = {c: j for j, c in enumerate(names)}
            hot = np.zeros((n, len(names)), dtype=np.float32)
            for row, of in enumerate(categories):
                hot[row, [column[c] for c in of]] = 1.0
            ids = tuple(self._index)
            self._matrix = ItemMatrix(tile, ids, dict(self._index), values, names, hot, tuple(self._items))
            self._described = True
        else:
            old = self._matrix
            self._matrix = replace(old, tile=tile, values=values, of_tile={})
        return self._matrix


@dataclass(frozen=True)
class History:
    """What the user liked lately, newest first: rows of the item matrix, ages in s. Unknown items are left out."""

    rows: Indices
    ages_s: Floats

    @classmethod
    def of(cls, values: Mapping[str, Any], items: ItemMatrix) -> "History":
        """From the user's values `history` and `history_age_s`."""
        rows = np.array([items.index.get(i, -1) for i in values["history"]], dtype=np.int64)
        ages = np.maximum(np.array(values["history_age_s"], dtype=np.float32), 0)
        known = rows >= 0
        return cls(rows[known], ages[known])


def interest(values: Mapping[str, Any], items: ItemMatrix) -> Floats:
    """The user's interest over the matrix's categories, scaled to length 1 (all 0 where there is none). float32 [c]."""
    column = items.derive(interest, lambda: {c: j for j, c in enumerate(items.category_names)})
    vector = np.zeros(len(column), dtype=np.float32)
    for name, weight in zip(values["interest"], values["interest_weight"], strict=True):
        if name in column:
            vector[column[name]] = weight
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


PAIR_COLUMNS = ("interest_match", "recent_match", "history_match", "in_history", "taste")
"""How user and item fit; the recall scores of the bundle's sources follow them.

By category: with the interest, the five newest items of the history, and all of it. `taste`: the cosine with the sum
of all that was liked and viewed lately (`bentos.taste`).
"""


def viewed(values: Mapping[str, Any], items: ItemMatrix) -> Indices:
    """Rows of what the user viewed lately, newest first, int64 [v]. Unknown items are left out."""
    return np.array([row for i in values["viewed"] if (row := items.index.get(i)) is not None], dtype=np.int64)


def item_inputs(items: ItemMatrix) -> Floats:
    """`RANKED_COLUMNS` of every item as ranking takes them, log(1 + x). float32 [n, len(RANKED_COLUMNS)]."""
    out = np.empty((len(items), len(_RANKED)), dtype=np.float32)
    for k, j in enumerate(_RANKED):  # one by one: all at once needs six times as much memory for a moment
        out[:, k] = np.log1p(np.maximum(items.values[:, j], 0.0))
    return out


def candidate_rows(
    values: Mapping[str, Any], items: ItemMatrix, history: History, rows: Indices, tastes: Floats, recall: Floats
) -> Floats:
    """One row a candidate: user values, item values, pair values, recall scores. float32 [m, f].

    `rows`: int64 [m] in the matrix; `tastes`: float32 [n, d], a vector of length 1 or 0 for every item of it;
    `recall`: float32 [m, s]. Counts, sums and ages come as log(1 + x): their tails are long, and a tree does not mind.
    """
    of_user = np.log1p(np.maximum([values[name] for name in USER_COLUMNS], 0.0)).astype(np.float32)
    of_items: Floats = items.once("inputs", lambda: item_inputs(items))
    hot = items.categories[rows]
    size = np.sqrt(np.maximum(hot.sum(1), 1.0))
    liked = items.categories[history.rows]
    recent, all_ = (some.sum(0) / np.float32(max(len(some), 1)) for some in (liked[:5], liked))
    matches = [hot @ of / size for of in (interest(values, items), recent, all_)]
    mine = tastes[np.concatenate([history.rows, viewed(values, items)])].sum(0)
    near = tastes[rows] @ mine / max(float(np.linalg.norm(mine)), 1e-12)
    pairs = np.stack([*matches, (rows[:, None] == history.rows).any(1), near], 1)
    everyone = np.broadcast_to(of_user, (len(rows), len(of_user)))
    return np.concatenate([everyone, of_items[rows], pairs, recall], 1, dtype=np.float32)


def input_names(sources: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns of `candidate_rows`, in their order."""
    user = tuple(f"user__{name}" for name in USER_COLUMNS)
    return user + tuple(f"item__{name}" for name in RANKED_COLUMNS) + PAIR_COLUMNS + tuple(sources)

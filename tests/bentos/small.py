"""A small world for tests of the cascade: items with states, users with histories, a cascade that learned nothing."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from bentos.cascade import Cascade
from bentos.inputs import ItemMatrix, ItemTable, input_names
from bentos.stages.content import BUCKETS, Tower
from bentos.stages.recall import SOURCES, ItemToItem, LightGCN, Recall
from bentos.taste import Taste, unit
from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from streams.aggregates import HOUR, TILE
from streams.catalogue import Item
from streams.events import Event, Micros
from training.networks import DinModule, RankNetModule

NOW: Micros = 1_700_000_000_000_000 // TILE * TILE + 20_000_000
"""Some seconds after the end of a tile."""
ITEMS = 40
DIM = 8
CATEGORIES = ("drama", "comedy", "war")


def event(n: int, user: str, item: str, kind: str, at: Micros, value: float | None = None) -> Event:
    """The n-th event."""
    return Event(f"e{n}", user, item, kind, at, at, value, (CATEGORIES[int(item[1:]) % 3],))


def user_values(*events: Event, at: Micros = NOW) -> dict[str, Any]:
    """What is known of a user after these events."""
    state = user_profile.new()
    for e in events:
        user_profile.update(state, e)
    return user_profile.values(state, at)


def liking(*items: str, kind: str = "click") -> dict[str, Any]:
    """The values of a user who liked these, a minute apart, the last one an hour ago."""
    return user_values(
        *(event(n, "u", i, kind, NOW - HOUR - (len(items) - n) * 60_000_000) for n, i in enumerate(items))
    )


def item_matrix(extra: tuple[str, ...] = ()) -> ItemMatrix:
    """`ITEMS` items of which item n was clicked n times lately; `extra` items are in the catalogue only."""
    table = ItemTable()
    for n in range(ITEMS):
        name = f"i{n}"
        table.describe(Item(name, f"item number {n}", (CATEGORIES[n % 3],)))
        state = item_profile.new()
        for k in range(n):
            item_profile.update(state, event(k, f"u{k}", name, "click", NOW - 3 * HOUR - k * 60_000_000))
        table.put(name, item_profile.encode(state))
    for name in extra:
        table.describe(Item(name, f"item {name}", (CATEGORIES[0],)))
    return table.at(NOW // TILE * TILE)


def tower(rng: np.random.Generator) -> Tower:
    return Tower(rng.normal(size=(BUCKETS, DIM)).astype(np.float32))


def cascade(size: int = 20, diversity: float = 0.0) -> Cascade:
    """A cascade with seeded, unfitted parameters: what must hold of every cascade must hold of this one."""
    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    weights = csr_matrix(rng.normal(size=(ITEMS, ITEMS)).astype(np.float32))
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    inputs = len(input_names(SOURCES))
    din = DinModule(inputs, DIM)
    din.linear.normal_()
    return Cascade(
        Recall(
            {f"i{n}": n for n in range(ITEMS)},
            ItemToItem(weights),
            LightGCN(vectors, np.ones(ITEMS, np.float32)),
            tower(rng),
        ),
        vectors,
        tower(rng),
        Taste(unit(rng.normal(size=(ITEMS, 4)).astype(np.float32))),
        din.din(),
        RankNetModule(inputs + 1).ranknet(),
        size,
        diversity,
    )

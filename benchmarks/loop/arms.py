"""The arms of `benchmarks.loop.day`: what each may know of the shop, and the lists that it makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import logit

from benchmarks.loop.residual import Residual
from bentos.cascade import Ask, allowed, popular
from bentos.inputs import ItemMatrix, ItemTable
from bentos.stages.rank import rank
from bentos.stages.recall import trending
from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from freshet.settings import get_settings
from streams.catalogue import Item
from streams.events import Event, Micros
from streams.simulate.sessions import FOCUSED
from streams.simulate.world import Floats, World, probability
from streams.tiled import t_item
from training.datasets import Question

K = 10
NEAR = 50
"""Of Freshet's own order, the first ones that the residual may order anew."""
LEARNING = "Freshet learning"
LIKED = ("0", "1", "2", "3 or more")
Lister = Callable[["Shop", int, str, Micros], list[str]]
"""An arm: the list for a user (number and id) at an instant."""


@dataclass
class Shop:
    """What one arm's line knows: rows of users and items, and the matrix of the last closed tile.

    `first`: items in the order of the training, which ALS counts on.
    """

    world: World
    first: Sequence[str]
    users: dict[str, bytes]
    items: dict[str, bytes]
    table: ItemTable = field(default_factory=ItemTable)
    matrix: ItemMatrix | None = None
    version: int = 0
    residual: Residual = field(default_factory=lambda: Residual(K))
    """What the arm that learns has learned."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """Other lists that the newest question could have had, for `--losses`."""

    def __post_init__(self) -> None:
        self._unborn = sorted(self.world.catalogue, key=lambda item: -(item.created_at or 0))
        for item_id in self.first:
            self.table.describe(Item(item_id, ""))
        for item_id, row in self.items.items():
            self.table.put(item_id, row)

    def tell(self, event: Event) -> None:
        """Fold one event into its user and its item."""
        self.version += 1
        self.users[event.user_id] = user_profile.advance(self.users.get(event.user_id), [event], self.version)
        row = self.items[event.item_id] = item_profile.advance(self.items.get(event.item_id), [event], self.version)
        self.table.put(event.item_id, row)
        self.residual.tell(event)

    def at(self, now: Micros) -> ItemMatrix:
        """All items that are born, at the last closed tile."""
        while self._unborn and (self._unborn[-1].created_at or 0) <= now:
            item = self._unborn.pop()
            self.table.describe(item)
        if self.matrix is None or self.matrix.tile != t_item(now):
            self.matrix = self.table.at(t_item(now))
        return self.matrix

    def ask(self, user_id: str, now: Micros) -> Ask:
        return Ask(user_id, user_profile.values(self.users.get(user_id), now), self.at(now), K)


def oracle(world: World, user: int, now: Micros) -> Floats:
    """The probability of a click on each item, by tastes alone: the mean over what a session may be after."""
    mixture = world.mixture(np.array([user]), np.array([now]))[0]
    focus = np.arange(-1, len(mixture))
    weight = np.concatenate([[1 - FOCUSED], FOCUSED * mixture])
    at = np.full(len(focus), now)
    affinity = np.repeat(world.affinity(np.array([user]), np.array([now])), len(focus), 0)
    chance = probability(world.logits(affinity, np.repeat(world.popularity(at[:1]), len(focus), 0), focus))
    found: Floats = weight @ chance
    return found


def losing(cascade: Any, lister: Lister) -> Lister:
    """The same arm, which also tells the shop what other orders of what it knew there were."""

    def list_(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        ask, world = shop.ask(user_id, now), shop.world
        f = cascade.features(ask)
        logits = rank(cascade.din, f.inputs, f.vectors, f.history, f.ages_s).logits
        numbers = np.array([world.item_number[item_id] for item_id in ask.items.ids])
        chance, appeal = oracle(world, user, now), world.popularity(np.array([now]))[0]
        own, near = numbers[f.rows], numbers[f.rows[np.argsort(-logits, kind="stable")[:NEAR]]]
        may = numbers[allowed(ask)]
        found = {
            "Freshet and each item's planted appeal": own[np.argsort(-(logits + 0.25 * appeal[own]), kind="stable")],
            f"oracle's order of Freshet's first {NEAR}": near[np.argsort(-chance[near], kind="stable")],
            "oracle's order of the candidates": own[np.argsort(-chance[own], kind="stable")],
            "oracle of what may be recommended": may[np.argsort(-chance[may], kind="stable")],
            "oracle of tastes": np.argsort(-chance, kind="stable"),
        }
        shop.others = {name: [world.item_ids[n] for n in best[:K].tolist()] for name, best in found.items()}
        liked = min(int(ask.user_values["likes_1h"]), 3)
        chosen = lister(shop, user, user_id, now)
        now_and_best = {"Freshet": chosen, "oracle of tastes": shop.others["oracle of tastes"]}
        shop.others |= {f"{name}, {LIKED[liked]} liked in the last hour": x for name, x in now_and_best.items()}
        return chosen

    return list_


def listers(cascade: Any, als: Callable[[Question], Floats]) -> dict[str, Lister]:
    """The arms by name."""
    dice = np.random.default_rng(1)

    def freshet(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        return [pick.item_id for pick in cascade.recommend(shop.ask(user_id, now)).picks]

    def exploring(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        ask = replace(shop.ask(user_id, now), explore=get_settings().explore_share, dice=dice)
        return [pick.item_id for pick in cascade.recommend(ask).picks]

    def learning(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        shop.residual.settle(now)
        picks = cascade.recommend(replace(shop.ask(user_id, now), k=NEAR)).picks
        likely, ids = np.array([pick.probability for pick in picks]), [pick.item_id for pick in picks]
        order = np.argsort(-(logit(likely) + shop.residual.scores(user_id, ids)), kind="stable")[:K].tolist()
        shop.residual.served(user_id, [ids[n] for n in order], likely[order].tolist(), now)
        return [ids[n] for n in order]

    def als_and_trending(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        ask = shop.ask(user_id, now)
        score = als(Question(user_id, now, ask.user_values, ask.items, frozenset(), ()))
        score = score if score.any() else trending(ask.items)
        order = np.argsort(-np.where(allowed(ask), score, -np.inf), kind="stable")[:K]
        return [ask.items.ids[row] for row in order.tolist()]

    def liked_lately(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        return [pick.item_id for pick in popular(shop.ask(user_id, now))]

    def by_taste(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        best = np.argsort(-oracle(shop.world, user, now), kind="stable")[:K]
        return [shop.world.item_ids[n] for n in best.tolist()]

    def by_taste_what_may(shop: Shop, user: int, user_id: str, now: Micros) -> list[str]:
        ask = shop.ask(user_id, now)
        chance = oracle(shop.world, user, now)[[shop.world.item_number[item_id] for item_id in ask.items.ids]]
        order = np.argsort(-np.where(allowed(ask), chance, -np.inf), kind="stable")[:K]
        return [ask.items.ids[row] for row in order.tolist()]

    return {
        "Freshet exploring": exploring,
        "Freshet": freshet,
        LEARNING: learning,
        "ALS + trending": als_and_trending,
        "popularity, 7 days": liked_lately,
        "oracle of tastes": by_taste,
        "oracle of tastes, what may come": by_taste_what_may,
    }

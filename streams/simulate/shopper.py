"""The shopper: one planted user in one session, who looks through a recommended list and acts as hidden taste says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.events import Micros
from streams.simulate.sessions import BUY_SHARE, CART_SHARE, RATE_SHARE, draw_focus, stars
from streams.simulate.world import SHIFT_SPEND, Floats, Ints, World, examined

EventBody = dict[str, Any]
"""An event as a client sends it."""


@dataclass(frozen=True)
class Response:
    """What a user did with a list: the events to send, and what could be expected of it."""

    events: list[EventBody]
    clicks: int
    purchases: int
    expected: float
    """Clicks that the list would get on average."""
    best: float
    """Clicks that the best possible list of this length would get on average."""


class Shopper:
    """One session of one user at one time. Its dice are its own: what others do does not change them."""

    def __init__(self, world: World, user: int, at: Micros, session_id: str, seed: tuple[int, ...]) -> None:
        self._world, self.user_id, self._session_id = world, world.user_ids[user], session_id
        self._rng = np.random.default_rng(seed)
        users, times = np.array([user]), np.array([at])
        focus = draw_focus(world, users, times, self._rng)
        self._affinity: Floats = world.affinity(users, times)[0]
        self._chance: Floats = world.click_probability(users, times, focus)[0]
        self._shifted = world.shifted(times)
        self._best = np.sort(self._chance)[::-1]

    def respond(self, item_ids: list[str], request_id: str) -> Response:
        """Look through a list from the top: an impression for each place, clicks, and what follows from them."""
        world, rng = self._world, self._rng
        numbers = [world.item_number.get(item_id, -1) for item_id in item_ids]
        chance = self._clicks(numbers)
        events = [
            self._event("impression", item_id, request_id, properties={"position": n})
            for n, item_id in enumerate(item_ids)
        ]
        clicks = purchases = 0
        for place in np.flatnonzero(rng.random(len(numbers)) < chance).tolist():
            item_id, number = item_ids[place], numbers[place]
            clicks += 1
            events.append(self._event("click", item_id, request_id, properties={"position": place}))
            events.append(self._event("view", item_id, request_id))
            bought = False
            if rng.random() < CART_SHARE:
                events.append(self._event("cart", item_id, request_id))
                bought = bool(rng.random() < BUY_SHARE)
            if bought:
                purchases += 1
                price = float(world.price[number]) * (SHIFT_SPEND if self._shifted[0] else 1.0)
                events.append(self._event("purchase", item_id, request_id, value=round(price, 2)))
            if rng.random() < (0.4 if bought else RATE_SHARE):
                given = stars(self._affinity[[number]], self._shifted, rng)
                events.append(self._event("rate", item_id, request_id, value=float(given[0])))
        best = float((self._best[: len(numbers)] * examined(len(numbers))).sum())
        return Response(events, clicks, purchases, float(chance.sum()), best)

    def expected(self, item_ids: Sequence[str]) -> float:
        """Clicks that a list would get on average, without looking through it."""
        return float(self._clicks([self._world.item_number.get(item_id, -1) for item_id in item_ids]).sum())

    def _clicks(self, numbers: Sequence[int]) -> Floats:
        """Probability of a click on each place: [n]. An unknown item, -1, is never clicked."""
        clicks: Floats = np.array([self._chance[n] if n >= 0 else 0.0 for n in numbers]) * examined(len(numbers))
        return clicks

    def _event(self, kind: str, item_id: str, request_id: str, **more: Any) -> EventBody:
        about = {"user_id": self.user_id, "item_id": item_id, "type": kind, "session_id": self._session_id}
        return about | {"request_id": request_id} | more


def choose_users(world: World, sessions: int, at: Micros, rng: np.random.Generator) -> Ints:
    """Who comes, one a session: by activity, among those who are there at the time."""
    there = (world.joined <= at) & (world.stays | ~world.shifted(at))
    weights = world.activity * there
    return rng.choice(world.spec.users, sessions, p=weights / weights.sum())

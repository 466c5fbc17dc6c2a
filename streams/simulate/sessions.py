"""Sessions: what planted users do on their own, as columns of events, many sessions at a time.

In a session a user sees one or two lists that know little of them, clicks some of it, and finds more by looking for
what they like. What they do with recommendations is left to `shopper`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.aggregates import DAY, HOUR, MINUTE, SECOND
from streams.events import Micros
from streams.simulate.world import SHIFT_SPEND, Floats, Ints, World, examined, probability

KINDS = ("cart", "click", "impression", "purchase", "rate", "view")
CART, CLICK, IMPRESSION, PURCHASE, RATE, VIEW = range(6)
LIST = 6
FOUND = 8
FOCUSED = 0.7
"""Share of sessions in which the user is after one category."""
RHYTHM = np.array([2, 1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 8, 7, 7, 7, 8, 9, 11, 12, 11, 8, 4], float)
"""How busy each hour of the day is."""
BLOCK = 512
"""Sessions worked out together: enough to keep numpy busy, few enough for the cache."""
PER_SESSION = 18
"""Events of a session, about."""


@dataclass(frozen=True)
class Columns:
    """Events of many sessions, one row each; numbers are those of the world. NaN in `value`, -1 in `position`: none."""

    user: Ints
    item: Ints
    kind: Ints
    at: Ints
    value: NDArray[np.float64]
    session: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.at)

    def rows(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> "Columns":
        """Some of the rows."""
        return Columns(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    @staticmethod
    def joined(parts: "list[Columns]") -> "Columns":
        """All rows of all parts."""
        names = Columns.__dataclass_fields__
        return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Visits:
    """Who comes, when, and after what: one row a session. `focus` is a category or -1."""

    user: Ints
    at: Ints
    focus: Ints


def draw_visits(world: World, count: int, start: Micros, end: Micros, rng: np.random.Generator) -> Visits:
    """About `count` visits in [start, end), by the users' activity and the rhythm of the day, in order of time."""
    user = rng.choice(world.spec.users, count, p=world.activity / world.activity.sum())
    earliest = np.maximum(world.joined[user], start)
    at = (earliest + rng.random(count) * np.maximum(end - earliest, 0)).astype(np.int64)
    if end - start > DAY:
        hour = rng.choice(24, count, p=RHYTHM / RHYTHM.sum())
        at = at // DAY * DAY + hour * HOUR + rng.integers(0, HOUR, count)
    gone = world.shifted(at) & ~world.stays[user]  # others come instead
    faithful = world.activity * world.stays
    user[gone] = rng.choice(world.spec.users, int(gone.sum()), p=faithful / faithful.sum())
    there = (at >= np.maximum(world.joined[user], start)) & (at < end)
    user, at = user[there], at[there]
    order = np.argsort(at, kind="stable")
    user, at = user[order], at[order]
    return Visits(user, at, draw_focus(world, user, at, rng))


def draw_focus(world: World, user: Ints, at: Ints, rng: np.random.Generator) -> Ints:
    """The category that each session is after: by the user's taste at that time, or -1."""
    steps = world.mixture(user, at).cumsum(axis=1)
    chosen = (steps < rng.random((len(user), 1)) * steps[:, -1:]).sum(axis=1)
    focus: Ints = np.where(rng.random(len(user)) < FOCUSED, chosen, -1)
    return focus


def act(world: World, visits: Visits, first_session: int, rng: np.random.Generator) -> Columns:
    """All events of the visits, in no order. Sessions are numbered from `first_session`."""
    parts = [
        _block(
            world, Visits(*(c[n : n + BLOCK] for c in (visits.user, visits.at, visits.focus))), first_session + n, rng
        )
        for n in range(0, len(visits.user), BLOCK)
    ]
    return Columns.joined(parts)


def _block(world: World, visits: Visits, first_session: int, rng: np.random.Generator) -> Columns:
    affinity, popularity = world.affinity(visits.user, visits.at), world.popularity(visits.at)
    wants = world.logits(affinity, popularity, visits.focus)
    shown = _sampled(1.5 * popularity + 3.5 * affinity, 2 * LIST, rng)
    found = _sampled(wants, FOUND, rng)
    out = _Written(world, visits, first_session, affinity, rng)
    pages = 1 + (rng.random(len(visits.user)) < 0.3)
    seen = np.arange(2 * LIST)[None, :] < (pages * LIST)[:, None]
    place = np.arange(2 * LIST) % LIST
    page_at = (np.arange(2 * LIST) // LIST) * 90 * SECOND
    out.write(IMPRESSION, shown, seen, page_at[None, :], position=place)
    chance = probability(np.take_along_axis(wants, shown, 1)) * np.tile(examined(LIST), 2)
    clicked = seen & (rng.random(shown.shape) < chance)
    clicked_at = page_at[None, :] + (4 + 3 * place[None, :]) * SECOND + rng.integers(0, 2 * SECOND, shown.shape)
    out.interest(shown, clicked, clicked_at, view_share=0.8, position=place)
    looked = np.arange(FOUND)[None, :] < np.minimum(rng.geometric(0.18, len(visits.user)), FOUND)[:, None]
    found_at = (20 + 50 * np.arange(FOUND))[None, :] * SECOND + rng.integers(0, 20 * SECOND, found.shape)
    out.write(VIEW, found, looked, found_at)
    liked = looked & (rng.random(found.shape) < probability(np.take_along_axis(wants, found, 1) + 1.5))
    out.interest(found, liked, found_at + 5 * SECOND, view_share=0.0)
    return Columns.joined(out.parts)


def _sampled(scores: Floats, k: int, rng: np.random.Generator) -> Ints:
    """k different items a row, drawn in proportion to exp(score), the likeliest first: the Gumbel top-k trick."""
    noisy = scores - np.log(rng.standard_exponential(scores.shape, dtype=np.float32) + np.float32(1e-30))
    best = np.argpartition(-noisy, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(noisy, best, 1), axis=1)
    return np.take_along_axis(best, order, 1)


def stars(affinity: Floats, shifted: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """What users who took an item give it: 1 to 5, by taste; a star less after the shift."""
    given = 1.7 + 3.0 * affinity + 0.7 * rng.normal(size=affinity.shape) - shifted
    return np.clip(np.round(given), 1, 5).astype(np.float64)


class _Written:
    """Collects the events of a block of sessions."""

    def __init__(
        self, world: World, visits: Visits, first_session: int, affinity: Floats, rng: np.random.Generator
    ) -> None:
        self._world, self._visits, self._first, self._affinity, self._rng = world, visits, first_session, affinity, rng
        self.parts: list[Columns] = []

    def write(
        self,
        kind: int,
        items: Ints,
        which: NDArray[np.bool_],
        after: Ints,
        *,
        value: NDArray[np.float64] | None = None,
        position: Ints | None = None,
    ) -> None:
        """One event for each True in `which` [sessions, places], `after` microseconds into its session."""
        session, place = np.nonzero(which)
        self.parts.append(
            Columns(
                user=self._visits.user[session],
                item=items[session, place],
                kind=np.full(len(session), kind),
                at=self._visits.at[session] + np.broadcast_to(after, which.shape)[session, place],
                value=np.full(len(session), np.nan) if value is None else value[session, place],
                session=self._first + session,
                position=np.full(len(session), -1) if position is None else position[place],
            )
        )

    def interest(
        self, items: Ints, clicked: NDArray[np.bool_], at: Ints, *, view_share: float, position: Ints | None = None
    ) -> None:
        """Clicks, and what follows from them."""
        rng, shape = self._rng, items.shape
        self.write(CLICK, items, clicked, at, position=position)
        self.write(VIEW, items, clicked & (rng.random(shape) < view_share), at + SECOND // 2)
        put = clicked & (rng.random(shape) < CART_SHARE)
        put_at = at + rng.integers(20, 60, shape) * SECOND
        self.write(CART, items, put, put_at)
        bought = put & (rng.random(shape) < BUY_SHARE)
        late = self._world.shifted(self._visits.at)[:, None]
        paid = self._world.price[items].astype(np.float64) * np.where(late, SHIFT_SPEND, 1.0)
        self.write(
            PURCHASE,
            items,
            bought,
            put_at + rng.integers(30, 90, shape) * SECOND,
            value=np.round(paid, 2),
        )
        rated = clicked & (rng.random(shape) < np.where(bought, 0.4, RATE_SHARE))
        affinity = np.take_along_axis(self._affinity, items, 1)
        self.write(
            RATE, items, rated, at + rng.integers(5 * MINUTE, 40 * MINUTE, shape), value=stars(affinity, late, rng)
        )


CART_SHARE, BUY_SHARE, RATE_SHARE = 0.22, 0.5, 0.1
"""Of clicks: put in the cart, rated. Of carts: bought."""

"""The world: what is planted, and hidden from the recommender. Users with tastes that drift, items that come and fade.

Whether a user clicks is a known probability here, so the best possible recommender can be computed. Turning tastes
into events is left to `sessions`; the same spec always grows the same world.
"""

from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from freshet.settings import Settings
from streams.aggregates import DAY
from streams.catalogue import Item
from streams.events import Micros
from streams.simulate.names import CATEGORIES, titles

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LATENT = 16
DRIFT: Micros = 7 * DAY
"""Tastes move from one knot to the next in this time."""
HORIZON: Micros = 60 * DAY
"""How long after its end the world goes on to be defined."""
NEVER: Micros = 1 << 60
BASE, GAIN, FOCUS = -5.4, 6.0, 2.0
"""Logit of a click on an item that is looked at: without affinity; what full affinity adds; what the focus adds."""
EXAMINE = 0.6
"""Position bias: place p (0 is the first) is looked at with probability (1 + p) ** -EXAMINE."""
NOVELTY, NOVELTY_DAYS = 0.5, 8.0
"""What a new item gains in its logit, and how fast it wears off."""
SHIFT_APPEAL, SHIFT_SPEND = 1.0, 5.0
"""What the items that appear with a shift have ahead of the others; by what prices are multiplied then."""


class WorldSpec(msgspec.Struct, frozen=True):
    """Everything that a world is grown from. History fills [start, end); `reserve` items appear only with a shift.

    From `shift_at` on, tastes are exchanged between categories, the reserve is on sale, prices are five times as high,
    ratings a star lower, half of the users stay away and the others come twice as often.
    """

    seed: int
    users: int
    items: int
    start: Micros
    end: Micros
    reserve: int = 0
    shift_at: Micros | None = None

    def save(self, settings: Settings) -> None:
        """Keep it in the home folder, for whoever continues this world."""
        path = _file(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)))

    @staticmethod
    def load(settings: Settings) -> "WorldSpec":
        """The world of the home folder. Raises `FileNotFoundError` with what to do."""
        path = _file(settings)
        if not path.exists():
            raise FileNotFoundError(f"there is no simulated world in {path.parent}: run `freshet simulate` first")
        return msgspec.json.decode(path.read_bytes(), type=WorldSpec)


def _file(settings: Settings) -> Path:
    return settings.home / "simulate" / "world.json"


class World:
    """A world grown from its spec. Users and items are numbered from 0; arrays are [users] or [items] long."""

    def __init__(self, spec: WorldSpec) -> None:
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        self._plant_items(rng)
        self._plant_users(rng)

    def _plant_items(self, rng: np.random.Generator) -> None:
        spec, total = self.spec, self.spec.items + self.spec.reserve
        self._centres = np.linalg.qr(rng.normal(size=(LATENT, len(CATEGORIES))))[0].T.astype(np.float32)
        sizes = rng.dirichlet(np.full(len(CATEGORIES), 8.0))
        self.primary: Ints = rng.choice(len(CATEGORIES), total, p=sizes)
        second = rng.integers(0, len(CATEGORIES), total)
        self.secondary: Ints = np.where((rng.random(total) < 0.3) & (second != self.primary), second, -1)
        mixed = self._centres[self.primary] + np.where(
            self.secondary[:, None] >= 0, 0.5 * self._centres[self.secondary], 0
        )
        self.vectors: Floats = _unit(_unit(mixed) + 0.65 * _unit(rng.normal(size=(total, LATENT))))
        self.belongs = np.zeros((total, len(CATEGORIES)), bool)
        self.belongs[np.arange(total), self.primary] = True
        self.belongs[self.secondary >= 0, self.secondary[self.secondary >= 0]] = True
        span = spec.end - spec.start
        born = np.where(
            rng.random(total) < 0.7, spec.start - rng.random(total) * 60 * DAY, spec.start + rng.random(total) * span
        )
        self.born: Ints = born.astype(np.int64)
        self.appeal: Floats = (0.35 * rng.normal(size=total)).astype(np.float32)
        self.life_days: Floats = rng.lognormal(np.log(70), 0.6, total).astype(np.float32)
        if spec.reserve:
            self.born[spec.items :] = NEVER if spec.shift_at is None else spec.shift_at
            self.appeal[spec.items :] += SHIFT_APPEAL
        self.price: Floats = np.round(rng.lognormal(np.log(16), 0.5, total), 2).astype(np.float32)
        self.item_ids = [f"{CATEGORIES[c].lower()}-{n:04d}" for n, c in enumerate(self.primary.tolist())]
        self.titles = titles(self.primary.tolist(), rng)

    def _plant_users(self, rng: np.random.Generator) -> None:
        spec, users = self.spec, self.spec.users
        knots = int((spec.end - spec.start + HORIZON) // DRIFT) + 2
        fashion = rng.dirichlet(np.full(len(CATEGORIES), 8.0))
        mixture = np.empty((knots, users, len(CATEGORIES)), np.float32)
        private = np.empty((knots, users, LATENT), np.float32)
        mixture[0] = rng.dirichlet(0.25 * len(CATEGORIES) * fashion, users)
        private[0] = _unit(rng.normal(size=(users, LATENT)))
        for k in range(1, knots):
            turned = rng.random((users, 1)) < 0.12  # now and then a user discovers something new
            fresh = rng.dirichlet(0.25 * len(CATEGORIES) * fashion, users)
            mixture[k] = np.where(turned, 0.3 * mixture[k - 1] + 0.7 * fresh, 0.92 * mixture[k - 1] + 0.08 * fresh)
            private[k] = _unit(0.95 * private[k - 1] + 0.3 * _unit(rng.normal(size=(users, LATENT))))
        self._mixture, self._private = mixture, private
        self._exchanged = np.roll(np.arange(len(CATEGORIES)), len(CATEGORIES) // 2)
        self.activity = rng.lognormal(0, 0.8, users)
        self.joined = np.where(
            rng.random(users) < 0.75, spec.start, spec.start + rng.random(users) * (spec.end - spec.start)
        ).astype(np.int64)
        self.stays = rng.random(users) < 0.5
        """Who stays when the shift comes."""
        self.user_ids = [f"u{n:05d}" for n in range(users)]

    def shifted(self, at: Micros | Ints) -> NDArray[np.bool_]:
        """Whether the shift has happened at an instant."""
        return np.asarray(at) >= (NEVER if self.spec.shift_at is None else self.spec.shift_at)

    def mixture(self, users: Ints, at: Ints) -> Floats:
        """How much each user likes each category at a time: [n, categories], rows sum to 1."""
        share = self._between(self._mixture, users, at)
        return np.where(self.shifted(at)[:, None], share[:, self._exchanged], share).astype(np.float32)

    def taste(self, users: Ints, at: Ints) -> Floats:
        """Each user's hidden taste at a time: unit vectors [n, LATENT]."""
        return _unit(_unit(self.mixture(users, at) @ self._centres) + 0.45 * self._between(self._private, users, at))

    def _between(self, knots: Floats, users: Ints, at: Ints) -> Floats:
        place = np.clip((at - self.spec.start) / DRIFT, 0, len(knots) - 1.001)
        k = place.astype(np.int64)
        part = (place - k).astype(np.float32)[:, None]
        between: Floats = knots[k, users] * (1 - part) + knots[k + 1, users] * part
        return between

    def popularity(self, at: Ints) -> Floats:
        """What each item's appeal and age add to the logit at each time: [n, items]; minus infinity before birth."""
        age = (at[:, None] - self.born[None, :]).astype(np.float32) / DAY
        there = self.appeal + NOVELTY * np.exp(-np.maximum(age, 0) / NOVELTY_DAYS) - np.maximum(age, 0) / self.life_days
        return np.where(age >= 0, there, np.float32(-np.inf)).astype(np.float32)

    def affinity(self, users: Ints, at: Ints) -> Floats:
        """Cosine of each user's taste and each item: [n, items]."""
        cosine: Floats = self.taste(users, at) @ self.vectors.T
        return cosine

    def logits(self, affinity: Floats, popularity: Floats, focus: Ints) -> Floats:
        """Logit of a click on each item, if it is looked at: [n, items]. `focus`: a category, or -1 for none."""
        wanted = np.where(focus[:, None] >= 0, self.belongs[:, focus].T, False).astype(np.float32)
        return (BASE + GAIN * affinity + popularity + FOCUS * wanted).astype(np.float32)

    def click_probability(self, users: Ints, at: Ints, focus: Ints) -> Floats:
        """Probability of a click by each user on each item, if it is looked at: [n, items]. The oracle."""
        return probability(self.logits(self.affinity(users, at), self.popularity(at), focus))

    @cached_property
    def catalogue(self) -> list[Item]:
        """The items as they enter the catalogue. Those of the reserve only when the shift has a time."""
        on_sale = self.spec.items + (self.spec.reserve if self.spec.shift_at is not None else 0)
        return [
            Item(
                item_id=self.item_ids[n],
                title=self.titles[n],
                categories=tuple(CATEGORIES[c] for c in (self.primary[n], self.secondary[n]) if c >= 0),
                created_at=int(self.born[n]),
            )
            for n in range(on_sale)
        ]

    @cached_property
    def item_number(self) -> dict[str, int]:
        """The number of each item id."""
        return {item_id: n for n, item_id in enumerate(self.item_ids)}


def probability(logits: Floats) -> Floats:
    """The logistic function."""
    with np.errstate(over="ignore"):
        chance: Floats = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return chance


def examined(places: int) -> Floats:
    """Probability that each place of a list is looked at: [places]."""
    seen: Floats = ((1.0 + np.arange(places)) ** -EXAMINE).astype(np.float32)
    return seen


def _unit(vectors: NDArray[np.floating]) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return unit

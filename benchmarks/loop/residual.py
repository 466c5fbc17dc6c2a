"""A residual that learns from what served lists got, between trainings: logistic regression over ranking's own logit.

What is served is settled `SETTLE` after it was shown: each place is an example, clicked or not. On top of the logit of
ranking's probability stand a level and one weight a place (learned, but not asked when items are ordered), one weight
an item, and one for how often this user was shown the item without a click. AdaGrad; weights begin at 0, so nothing
changes before there are examples. The same events in the same order give the same weights. At most `items` items and
`users` users, with `KEPT` shown items each, are held; what was shown least lately goes first.

It gains nothing over the frozen cascade (benchmarks/RESULTS.md), so it is an arm of `benchmarks.loop.day` and no more.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from streams.aggregates import SECOND
from streams.events import Event, Micros

Floats = npt.NDArray[np.float64]

SETTLE: Micros = 30 * SECOND
"""A click later than this is not counted as one of the list."""
RATE = 0.2
PRIOR = 30.0
"""What AdaGrad's sum of squares begins with for an item: the more, the more examples it takes to move it."""
OFTEN = 3
"""A user who was shown an item so often or more is one case."""
KEPT = 200
"""Items that are remembered as shown to a user."""


@dataclass
class _Weights:
    """Weights with AdaGrad's sums of squares. [n] each."""

    n: int
    value: Floats = field(init=False)
    squares: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.value, self.squares = np.zeros(self.n), np.ones(self.n)

    def step(self, error: Floats) -> None:
        self.squares += error**2
        self.value += RATE * error / np.sqrt(self.squares)


@dataclass(frozen=True)
class _List:
    user_id: str
    item_ids: Sequence[str]
    logits: Floats
    at: Micros
    clicked: set[str] = field(default_factory=set)


class Residual:
    """`examples`: places learned from. `loss`, `frozen`: sums of their log loss, with the residual and by place."""

    def __init__(self, places: int, items: int = 100_000, users: int = 100_000) -> None:
        self._most_items, self._most_users = items, users
        self._place, self._level, self._often = _Weights(places), _Weights(1), _Weights(OFTEN + 1)
        self._plain_place, self._plain_level = _Weights(places), _Weights(1)
        self._items: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._shown: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._open: deque[_List] = deque()
        self.examples, self.loss, self.frozen = 0, 0.0, 0.0

    def __len__(self) -> int:
        """Items that are held."""
        return len(self._items)

    def scores(self, user_id: str, item_ids: Sequence[str]) -> Floats:
        """What is added to the logit of each item. float64 [n]."""
        of_items = np.array([self._items.get(i, (0.0, 0.0))[0] for i in item_ids])
        scores: Floats = of_items + self._often.value[self._times(user_id, item_ids)]
        return scores

    def served(self, user_id: str, item_ids: Sequence[str], probabilities: Sequence[float], at: Micros) -> None:
        """A list was shown: item ids from the top, and what ranking promised of each."""
        said = np.clip(np.array(probabilities, dtype=np.float64), 1e-6, 1 - 1e-6)
        self._open.append(_List(user_id, item_ids, np.log(said / (1 - said)), at))

    def tell(self, event: Event) -> None:
        """A click counts for the newest open list of the user that has the item."""
        if event.type != "click":
            return
        for shown in reversed(self._open):
            if shown.user_id == event.user_id and event.item_id in shown.item_ids:
                shown.clicked.add(event.item_id)
                return

    def settle(self, now: Micros) -> None:
        """Learn from every list that was shown long enough ago."""
        while self._open and now - self._open[0].at >= SETTLE:
            self._learn(self._open.popleft())

    def _times(self, user_id: str, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        known = self._shown.get(user_id, {})
        return np.array([min(known.get(i, 0), OFTEN) for i in item_ids], dtype=np.int64)

    def _learn(self, shown: _List) -> None:
        n, times = len(shown.item_ids), self._times(shown.user_id, shown.item_ids)
        came = np.array([float(i in shown.clicked) for i in shown.item_ids])
        plain = shown.logits + self._plain_level.value + self._plain_place.value[:n]
        full = shown.logits + self._level.value + self._place.value[:n] + self.scores(shown.user_id, shown.item_ids)
        self.examples += n
        self.loss += float((np.logaddexp(0, full) - came * full).sum())
        self.frozen += float((np.logaddexp(0, plain) - came * plain).sum())
        _step(self._plain_level, self._plain_place, came - expit(plain))
        error = came - expit(full)
        _step(self._level, self._place, error)
        often = np.bincount(times, weights=error, minlength=OFTEN + 1)
        often[0] = 0.0  # never shown is what the others are compared with
        self._often.step(often)
        for item_id, e in zip(shown.item_ids, error.tolist(), strict=True):
            value, squares = self._items.pop(item_id, (0.0, PRIOR))
            squares += e * e
            self._items[item_id] = value + RATE * e / squares**0.5, squares
        known = self._shown.pop(shown.user_id, {})
        for item_id in shown.item_ids:
            before = known.pop(item_id, 0)
            if item_id not in shown.clicked:
                known[item_id] = before + 1
        self._shown[shown.user_id] = dict(list(known.items())[-KEPT:])
        while len(self._items) > self._most_items:
            self._items.popitem(last=False)
        while len(self._shown) > self._most_users:
            self._shown.popitem(last=False)


def _step(level: _Weights, place: _Weights, error: Floats) -> None:
    level.step(error.sum(keepdims=True))
    place.step(np.pad(error, (0, place.n - len(error))))

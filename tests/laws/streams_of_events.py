"""Made-up streams for the laws: out of order, with ties, gaps, missing values and times that straddle tiles."""

from hypothesis import strategies as st

from streams.aggregates import DAY, HOUR, SECOND, TILE
from streams.events import Event

START = 1_700_000_000 * SECOND
KINDS = ("view", "click", "rate", "purchase", "impression", "custom_kind")


LONG = 11
"""Items from this one on have an id whose length takes two bytes."""
SPREADS = [
    (60 * SECOND, 1),
    (2 * HOUR, TILE),
    (3 * DAY, HOUR),
    (60 * DAY, HOUR),
    (60 * DAY, 1),
    (4_000 * DAY, 10 * DAY),
]


def _event(n: int, at: int, shape: tuple[int, str, int, int | None, str]) -> Event:
    item, kind, delay, thousandths, categories = shape
    value = None if thousandths is None else thousandths / 1_000
    item_id = f"i{item}" if item < LONG else f"i{item}" * 100
    return Event(f"e{n}", "u", item_id, kind, at, at + delay, value, tuple(sorted(set(categories))))


_shapes = st.tuples(
    st.integers(0, 12),
    st.sampled_from(KINDS),
    st.sampled_from([0, SECOND, HOUR]),
    st.one_of(st.none(), st.integers(-100_000, 100_000), st.sampled_from([-1, 1, 100, 10**7, -(10**13), 10**13])),
    st.text("abcdefghijkl", max_size=3),
)


def events(most: int = 40) -> st.SearchStrategy[list[Event]]:
    """Up to `most` events of one user, spread over anything from a minute to eleven years."""

    def of_spread(chosen: tuple[int, int]) -> st.SearchStrategy[list[Event]]:
        spread, step = chosen
        some = st.lists(st.tuples(st.integers(0, spread // step), _shapes), max_size=most)
        return some.map(lambda drawn: [_event(n, START + at * step, shape) for n, (at, shape) in enumerate(drawn)])

    return st.sampled_from(SPREADS).flatmap(of_spread)

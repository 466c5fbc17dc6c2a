"""Made-up streams for the laws: out of order, with ties, gaps, missing values and times that straddle tiles."""

from hypothesis import strategies as st

from streams.aggregates import DAY, HOUR, SECOND, TILE
from streams.events import Event

START = 1_700_000_000 * SECOND
KINDS = ("view", "click", "rate", "purchase", "impression", "custom_kind")


@st.composite
def events(draw: st.DrawFn, most: int = 40) -> list[Event]:
    """Up to `most` events of one user, spread over anything from a minute to sixty days."""
    spread = draw(st.sampled_from([60 * SECOND, 2 * HOUR, 3 * DAY, 60 * DAY]))
    step = draw(st.sampled_from([1, TILE, HOUR]))
    out = []
    for n in range(draw(st.integers(0, most))):
        at = START + draw(st.integers(0, spread // step)) * step
        out.append(
            Event(
                event_id=f"e{n}",
                user_id="u",
                item_id=f"i{draw(st.integers(0, 12))}",
                type=draw(st.sampled_from(KINDS)),
                event_time=at,
                arrival=at + draw(st.sampled_from([0, SECOND, HOUR])),
                value=draw(st.one_of(st.none(), st.floats(-100, 100).map(lambda x: round(x, 3)))),
                categories=tuple(sorted(draw(st.sets(st.sampled_from("abcdefghijkl"), max_size=3)))),
            )
        )
    return out

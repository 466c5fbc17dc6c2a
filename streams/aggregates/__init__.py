"""The aggregates: what a feature can remember about a stream of events, and how it is read at an instant.

Each aggregate is one frozen declaration with a small mutable *slot* as its state. A slot is changed by `update`,
joined by `merge`, and read by the pure function `value(slot, at)`; time alone never changes a slot. How slots make
up the state of a user or an item, and its bytes, is left to `streams.profiles`.

Windows are sparse tiles aligned to the epoch: 5 minutes for windows up to 12 hours, 1 hour up to 12 days, 1 day
beyond ("sawtooth" windows, after Chronon's `Resolution`). A window W read at t holds the events known with
`floor(t - W, tile) <= event_time`. Sums are integers of 1e-6, so merging is exact in any order.
"""

from streams.aggregates.base import (
    DAY,
    EARLY_READ,
    EVER,
    HOUR,
    MINUTE,
    SECOND,
    TILE,
    UNIT,
    Aggregate,
    BadDeclaration,
    Column,
    Dtype,
    Selector,
    Slot,
    hash64,
    on,
    span_of,
    tile_of,
)
from streams.aggregates.decayed import Decayed
from streams.aggregates.distinct import Distinct
from streams.aggregates.recency import Recent, Since
from streams.aggregates.windows import Count, Mean, Sum

__all__ = [
    "DAY",
    "EARLY_READ",
    "EVER",
    "HOUR",
    "MINUTE",
    "SECOND",
    "TILE",
    "UNIT",
    "Aggregate",
    "BadDeclaration",
    "Column",
    "Count",
    "Decayed",
    "Distinct",
    "Dtype",
    "Mean",
    "Recent",
    "Selector",
    "Since",
    "Slot",
    "Sum",
    "hash64",
    "on",
    "span_of",
    "tile_of",
]

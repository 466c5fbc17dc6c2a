"""The update of a profile for one type of event, compiled: straight Python made from the declaration.

What it does is said by `Aggregate.update`, feature by feature; a law test holds the two against each other. It is
three times as fast: no loop over features and series, no call for the commonest case, each tile index reckoned once.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from streams.aggregates import EVER, Aggregate
from streams.aggregates.windows import add
from streams.events import Event

_TILE = re.compile(r"tile_(\d+)")

Update = Callable[[Any, Event], None]
"""(part, event): count the event into the features that it reaches."""


def compiled(
    reached: Sequence[tuple[int, Aggregate, float | None]], slot_of: Callable[[Any, int], Any], name: str
) -> Update:
    """The update of those features (index, feature, least value) of a part. `slot_of` gives a slot that is not live."""
    scope: dict[str, Any] = {"add": add, "slot_of": slot_of}
    body: list[str] = []
    for i, feature, least in reached:
        scope[f"update_{i}"] = feature.update
        lines = [
            f"slot = live[{i}]",
            f"if slot is None: slot = live[{i}] = slot_of(part, {i})",
            *(feature.source("slot") or [f"update_{i}(slot, event)"]),
            f"packed[{i}] = None",
        ]
        if least is not None:
            lines = [f"if value is not None and value >= {float(least)!r}:", *indented(lines)]
        body += lines
    sizes = sorted({int(size) for line in body for size in _TILE.findall(line)})
    tiles = [f"tile_{size} = {0 if size == EVER else f'at // {size}'}" for size in sizes]
    head = "live, packed, at, value = part.live, part.packed, event.event_time, event.value"
    source = "\n".join(["def update(part, event):", *indented([head, *tiles, *body])])
    exec(compile(source, f"<update of {name}>", "exec"), scope)
    made: Update = scope["update"]
    return made


def indented(lines: Sequence[str]) -> list[str]:
    return [" " + line for line in lines]

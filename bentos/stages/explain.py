"""Explanations that are true: the liked item that the ranking attended to most, or what recalled the item."""

from collections.abc import Mapping
from dataclasses import dataclass

from bentos.inputs import Floats, History, ItemMatrix

SHARE = 1.5
"""An attention weight counts as a reason when it is this many times what equal attention would give."""


@dataclass(frozen=True)
class Because:
    """Why an item is there. For kind "history", `item_id` is the liked item and `weight` its part of the attention."""

    kind: str
    item_id: str | None
    weight: float


def because(
    attention: Floats,
    history: History,
    items: ItemMatrix,
    row: int,
    sources: tuple[str, ...],
    interests: Mapping[str, float],
) -> Because:
    """The reason for one candidate: attention [t] over its history, else shared interest, else the source."""
    if len(history.rows):
        top = int(attention.argmax())
        if len(history.rows) <= 2 or attention[top] * len(history.rows) >= SHARE:
            return Because("history", items.ids[int(history.rows[top])], float(attention[top]))
    names = [name for name in items.categories_of(row) if name in interests]
    if names:
        best = max(names, key=lambda name: (interests[name], name))
        return Because(f"interest:{best}", None, float(interests[best]))
    return Because("new" if sources == ("new",) else "trending", None, 0.0)

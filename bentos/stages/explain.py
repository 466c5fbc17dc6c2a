"""Explanations that are true: the liked item that the ranking attended to most, or what recalled the item."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    values: Mapping[str, Any],
) -> Because:
    """The reason for one candidate: attention [t] over its history, else shared interest, else the source."""
    if len(history.rows):
        top = int(attention.argmax())
        if len(history.rows) <= 2 or attention[top] * len(history.rows) >= SHARE:
            return Because("history", items.ids[int(history.rows[top])], float(attention[top]))
    mine = dict(zip(values["interest"], values["interest_weight"], strict=True))
    names = [c for j in items.categories[row].nonzero()[0] if (c := items.category_names[j]) in mine]
    if names:
        best = max(names, key=lambda c: (mine[c], c))
        return Because(f"interest:{best}", None, float(mine[best]))
    return Because("new" if sources == ("new",) else "trending", None, 0.0)

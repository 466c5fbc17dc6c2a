"""Users and items at the edge, whom a bundle must answer like any other before it may be registered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bentos.cascade import Ask, Cascade
from bentos.inputs import ItemTable
from feature_repo.features import user as user_profile
from streams.aggregates import DAY, HOUR, SECOND, TILE
from streams.catalogue import Item
from streams.events import Event, Micros

AT: Micros = 1_780_000_000 * SECOND
K = 10
MANY = 10_000


def _clicks(item_ids: Sequence[str], times: Sequence[Micros]) -> dict[str, Any]:
    """The values at `AT` of a user who clicked those items at those times."""
    events = [
        Event(f"edge-{n}", "edge", item_id, "click", at, at, None, ())
        for n, (item_id, at) in enumerate(zip(item_ids, times, strict=True))
    ]
    return user_profile.values(user_profile.advance(None, events, len(events)) if events else None, AT)


def _cases(known: Sequence[str]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    some = [known[n % len(known)] for n in range(MANY)]
    yield "an empty history", lambda: _clicks([], [])
    yield "one event", lambda: _clicks(known[:1], [AT - HOUR])
    yield "an item that the bundle has never seen", lambda: _clicks(["edge-unseen"], [AT - HOUR])
    yield f"{MANY:,} events", lambda: _clicks(some, [AT - DAY + n * SECOND for n in range(MANY)])
    yield "the same item again and again", lambda: _clicks([known[0]] * 200, [AT - HOUR + n for n in range(200)])
    yield "events with times ahead of the clock", lambda: _clicks(known[:5], [AT + 50 * SECOND + n for n in range(5)])


def failures(cascade: Cascade, known: Sequence[str], catalogue: Mapping[str, Item]) -> list[str]:
    """What is wrong, in words; empty when every case gets `K` different items that are `known`.

    Beside those of the bundle there is one that it has never seen.
    """
    table = ItemTable()
    for item_id in (*known, "edge-unseen"):
        table.describe(catalogue.get(item_id) or Item(item_id, ""))
    items, found = table.at(AT // TILE * TILE), []
    for name, values in _cases(known):
        try:
            picks = [p.item_id for p in cascade.recommend(Ask("edge", values(), items, K)).picks]
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
            continue
        barred = set(values()["history"])
        if len(set(picks)) != min(K, len(items) - len(barred & set(items.ids))) or set(picks) & barred:
            found.append(f"{name}: {len(picks)} items, {len(set(picks))} of them different: {picks}")
    return found

"""Puts picks into words: titles, categories, and the reason as a sentence that is true of the pick."""

from collections.abc import Mapping, Sequence

from bentos.cascade import Pick
from bentos.inputs import ItemMatrix
from bentos.messages import Because, Recommended
from streams.catalogue import Item

WORDS = {"new": "new in the catalogue", "trending": "many like it lately", "pinned": "chosen for everyone"}


def shown(picks: Sequence[Pick], items: ItemMatrix, catalogue: Mapping[str, Item], explain: bool) -> list[Recommended]:
    """The picks as an answer shows them. An item that the catalogue does not know has its id for a title."""
    return [
        Recommended(
            item_id=pick.item_id,
            title=_title(pick.item_id, catalogue),
            categories=list(items.categories_of(pick.row)),
            score=round(pick.score, 6),
            probability=None if pick.probability is None else round(pick.probability, 6),
            conversion=None if pick.conversion is None else round(pick.conversion, 6),
            propensity=None if pick.propensity is None else round(pick.propensity, 6),
            sources=list(pick.sources),
            because=_because(pick, catalogue) if explain else None,
        )
        for pick in picks
    ]


def _because(pick: Pick, catalogue: Mapping[str, Item]) -> Because:
    kind, item_id = pick.because.kind, pick.because.item_id
    if item_id is not None:
        title = _title(item_id, catalogue)
        return Because(kind=kind, item_id=item_id, title=title, text=f"because you liked {title}")
    if kind.startswith("interest:"):
        return Because(kind="interest", text=f"because you like {kind.partition(':')[2]}")
    return Because(kind=kind, text=WORDS.get(kind, WORDS["trending"]))


def _title(item_id: str, catalogue: Mapping[str, Item]) -> str:
    known = catalogue.get(item_id)
    return item_id if known is None else known.title

"""Which kinds of questions there are: by how well the user is known, by how well the item is, by how long ago."""

from bentos.stages.exposure import KNOWN, tail
from streams.aggregates import DAY, HOUR, SECOND
from training.datasets import Question

NEW, LIGHT = 5, 20
"""A user is new below so many likes, light below the second."""


def slices(question: Question) -> list[str]:
    """The slices that a question falls into. By item only where there is one right answer."""
    liked = question.user_values["likes_ever"]
    found = ["user: new" if liked < NEW else "user: light" if liked < LIGHT else "user: heavy"]
    gap = question.user_values["last_seen_s"] * SECOND
    found.append("gap: below an hour" if gap < HOUR else "gap: below a day" if gap < DAY else "gap: a day or more")
    if len(question.positives) == 1:
        row = question.items.index.get(question.positives[0])
        new = row is None or question.items.column("likes_ever")[row] < KNOWN
        found.append("item: new" if new else "item: tail" if tail(question.items)[row] else "item: head")
    return found

"""Which kinds of questions there are: by how well the user is known, by how well the item is, by how long ago."""

import numpy as np

from streams.aggregates import DAY, HOUR, SECOND
from training.datasets import Question

NEW, LIGHT = 5, 20
"""A user is new below so many likes, light below the second; an item is new below `NEW` of its own."""
HEAD = 0.2
"""The part of the catalogue, most liked first, that is its head."""


def slices(question: Question) -> list[str]:
    """The slices that a question falls into. By item only where there is one right answer."""
    liked = question.user_values["likes_ever"]
    found = ["user: new" if liked < NEW else "user: light" if liked < LIGHT else "user: heavy"]
    gap = question.user_values["last_seen_s"] * SECOND
    found.append("gap: below an hour" if gap < HOUR else "gap: below a day" if gap < DAY else "gap: a day or more")
    if len(question.positives) == 1:
        likes = question.items.column("likes_ever")
        row = question.items.index.get(question.positives[0])
        mine = 0.0 if row is None else float(likes[row])
        head = np.partition(likes, -max(1, int(HEAD * len(likes))))[-max(1, int(HEAD * len(likes)))]
        found.append("item: new" if mine < NEW else "item: head" if mine >= head else "item: tail")
    return found

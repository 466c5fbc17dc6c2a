"""The session: what was shown lately, and which of it was liked, moves the order of the next list.

Ranking is told what a user liked and nothing of what was shown in vain, which says what this session is not after. What
comes of a list is taken for a logistic regression over the items' categories and taste (`bentos.taste`) with a normal
prior, and the candidates are moved by one step of Newton from that prior towards its mode. It is solved between the
items shown, which are few, so it costs the same in a shop of a thousand categories. What all candidates share says
nothing of their order and is taken off first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, History, Indices, ItemMatrix
from bentos.stages.explore import rate

SETTLED_S, SESSION_S = 30.0, 1_800.0
"""Ages of what counts as shown in this session: younger, and its user has not looked through it yet."""
CLICKED = 0.13
"""How many of the items shown are liked, at most: what is liked speaks for its like by the rest, what is not against by
this. Where the catalogue has fewer clicks an impression it is that: being passed over says little there. (It may have
more, as what is clicked is not always what was shown.)"""
PRIOR = 0.5
"""Variance of what a direction adds to the log-odds of a click."""
STRENGTH = 2.0
"""Logits of ranking for one of a click: among those that ranking puts first, the latter rise half as fast at most."""


def looked_through(
    values: Mapping[str, Any], items: ItemMatrix, history: History
) -> tuple[Indices, npt.NDArray[np.bool_]]:
    """What this session has shown, newest first: rows int64 [s], and which of it was liked since, bool [s]."""
    lately = [
        (row, age)
        for item_id, age in zip(values["shown"], values["shown_age_s"], strict=True)
        if SETTLED_S <= age <= SESSION_S and (row := items.index.get(item_id)) is not None
    ]
    shown, ages = np.array([row for row, _ in lately], dtype=np.int64), np.array([age for _, age in lately])
    liked = np.zeros(len(shown), dtype=bool)
    newest = np.unique(shown, return_index=True)[1]  # a like is that of the last time its item was shown
    liked[newest] = ((history.rows == shown[newest, None]) & (history.ages_s <= ages[newest, None])).any(1)
    return shown, liked


def tilt(values: Mapping[str, Any], items: ItemMatrix, history: History, rows: Indices, tastes: Floats) -> Floats:
    """What the session adds to ranking's logits of the candidates `rows` int64 [m]. float32 [m].

    `tastes`: float32 [n, d], a vector of length 1 or 0 for every item of the matrix.
    """
    shown, liked = looked_through(values, items, history)
    if not len(shown):
        return np.zeros(len(rows), dtype=np.float32)
    candidates, theirs = _places(items, rows, tastes), _places(items, shown, tastes)
    centre = candidates.mean(0)
    candidates -= centre
    theirs -= centre
    clicked = min(CLICKED, rate(items))
    certain = clicked * (1 - clicked)
    alike = PRIOR * (theirs @ theirs.T)
    alike[np.diag_indices(len(shown))] += 1 / certain
    found = np.linalg.solve(alike, (liked - clicked) / certain).astype(np.float32)
    moved: Floats = np.float32(STRENGTH * PRIOR) * (candidates @ (theirs.T @ found))
    return moved


def _places(items: ItemMatrix, rows: Indices, tastes: Floats) -> Floats:
    """Where items stand: their categories, scaled to length 1, beside their taste. float32 [len(rows), c + d]."""
    hot = items.categories[rows]
    return np.concatenate([hot / np.sqrt(np.maximum(hot.sum(1, keepdims=True), 1.0)), tastes[rows]], 1)

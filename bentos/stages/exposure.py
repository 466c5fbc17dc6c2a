"""Exposure: how much of an answer's attention goes to the long tail, and the places that give it a least share.

Attention falls with the position as NDCG discounts it, 1 / log2(1 + position) (Singh and Joachims, KDD 2018). The
places are filled greedily, as FA*IR (Zehlike et al., CIKM 2017) and DetGreedy (Geyik et al., KDD 2019) do it with
counts: the best that is left, unless the tail would then fall behind its share.
"""

import numpy as np
import numpy.typing as npt

from bentos.inputs import Floats, Indices, ItemMatrix

Mask = npt.NDArray[np.bool_]
HEAD = 0.2
"""The part of the catalogue, most liked first, that is its head."""
KNOWN = 5
"""Likes below which an item is new, and so never in the head."""


def tail(items: ItemMatrix) -> Mask:
    """Which items are in the long tail: all but the head, new ones too. bool [n]."""

    def make() -> Mask:
        likes = items.column("likes_ever")
        size = max(1, int(HEAD * len(likes)))
        return np.asarray(likes < max(float(np.partition(likes, -size)[-size]), KNOWN))

    mask: Mask = items.once("tail", make)
    return mask


def attention(k: int) -> npt.NDArray[np.float64]:
    """Of each of the first `k` positions. float64 [k]."""
    return 1.0 / np.log2(np.arange(2, k + 2))


def share(of_tail: Mask) -> float:
    """The tail's part of the exposure of an answer, of which bool [k] says where the tail is; 0 of an empty one."""
    weights = attention(len(of_tail))
    return float(weights[of_tail].sum() / weights.sum()) if len(of_tail) else 0.0


def placed(of_tail: Mask, categories: Floats, k: int, least: float, most: int | None) -> Indices:
    """Which of m items, given best first, come into `k` places, in their order: int64 [<= k], as indices.

    At every place the tail has its `least` share of the exposure so far, or has it as soon as the next place is the
    tail's; at the last place it has it. No more than `most` items come of a category. The cap goes before the share;
    where too few items are left for either, the best of the others follow. `of_tail` bool [m]; `categories` [m, c] as
    0 and 1.
    """
    k = min(k, len(of_tail))
    weights = np.append(attention(k), 0.0)
    taken = np.zeros(categories.shape[1])
    left = np.ones(len(of_tail), dtype=bool)
    order, given, total = np.empty(k, dtype=np.int64), 0.0, 0.0
    for n in range(k):
        total += weights[n]
        owed = given + weights[n + 1] < least * (total + weights[n + 1])
        fits = left if most is None else left & (categories @ (taken >= most) == 0)
        choices = (fits & of_tail, fits, left & of_tail, left) if owed else (fits, left)
        chosen = next(int(some.argmax()) for some in choices if some.any())
        order[n], left[chosen] = chosen, False
        taken += categories[chosen]
        given += weights[n] * of_tail[chosen]
    return order

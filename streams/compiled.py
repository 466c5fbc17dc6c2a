"""The compiled half of `Profile`, where it was built and knows every aggregate of the declaration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streams.aggregates import TILE, Aggregate, Count, Decayed, Distinct, Mean, Recent, Since, Sum, span_of
from streams.aggregates.windows import Windowed

if TYPE_CHECKING:
    from streams.kernel import Feature, Reached

try:
    from streams.kernel import Kernel
except ImportError:  # Python had no headers where Freshet was installed
    Kernel = None  # type: ignore[assignment,misc]

MOST_WINDOWS = 16
KINDS = (Count, Sum, Mean, Distinct, Recent, Decayed, Since)


def kernel_of(
    profile: int, features: Sequence[Aggregate], reached: "Reached", open_tiles: int | None
) -> "Kernel | None":
    """The kernel of the profile with that mark; `open_tiles` is None where it has no tiles."""
    if Kernel is None or any(type(f) not in KINDS or len(f.columns) > MOST_WINDOWS for f in features):
        return None
    specs = [_feature(feature) for feature in features]
    return Kernel(profile, specs, reached, TILE if open_tiles is not None else 0, open_tiles or 0)


def _feature(a: Aggregate) -> "Feature":
    """(signature, class, [(tile size, tiles kept)], its windows, field, bound, half-life, keeps the first, blank)."""
    sizes, reads = (list(a.sizes), list(a.reads)) if isinstance(a, Windowed) else ([], [])
    field = a.by if isinstance(a, Distinct | Recent | Decayed) else ""
    most = 0
    match a:
        case Distinct():
            most = a.k
        case Recent():
            most = a.n
        case Decayed():
            most = a.keys
        case Since():
            most = span_of(a.cap)
    half_life = a.half_life_us if isinstance(a, Decayed) else 0
    first, blank = isinstance(a, Since) and a.first, a.value(a.new(), 0)
    return a.signature, type(a).__name__, sizes, reads, field, most, half_life, first, blank

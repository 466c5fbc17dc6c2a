"""A profile's declarations as the oracle takes them, and one key's columns held against the oracle's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monitoring.oracle import Declared
from monitoring.report import Check
from streams.aggregates import span_of
from streams.profiles import Profile

CLOSE = 1e-9
"""Relative difference that a decayed weight may have: its sum depends on the order of its terms."""


def declared(profile: Profile) -> list[Declared]:
    """The features of a profile as data: names and parameters, no code."""
    out = []
    for f in profile.features:
        given = {
            name: getattr(f, name)
            for name in ("windows", "by", "n", "k", "keys", "first", "default")
            if hasattr(f, name)
        }
        selector = f.selector()
        out.append(
            Declared(
                kind=type(f).__name__,
                name=f.name,
                of=None if selector is None else selector.terms,
                half_life_us=span_of(f.half_life) if hasattr(f, "half_life") else 0,
                cap_us=span_of(f.cap) if hasattr(f, "cap") else 0,
                **given,
            )
        )
    return out


def same(want: Any, got: Any, close: float = 0.0) -> bool:
    """Equal; numbers of a list within the relative difference `close`."""
    if close and isinstance(want, Sequence) and isinstance(got, Sequence):
        return len(want) == len(got) and all(math.isclose(a, b, rel_tol=close) for a, b in zip(want, got, strict=True))
    return bool(want == got)


def compare(profile: Profile, check: Check, key: str, want: Mapping[str, Any], got: Mapping[str, Any], at: int) -> None:
    """Hold one key's values against the oracle's; columns that the oracle leaves out have their default."""
    decaying = {c for f in profile.features if type(f).__name__ == "Decayed" for c in (f"{f.name}_weight",)}
    check.compared += 1
    wrong = [
        f"{c.name}: {got[c.name]!r} instead of {w!r}"
        for c in profile.columns
        if not same(w := want.get(c.name, c.default), got[c.name], CLOSE if c.name in decaying else 0.0)
    ]
    if wrong:
        check.differ(f"{profile.name} {key!r} at {at}: {'; '.join(wrong)}")

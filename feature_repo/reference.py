"""The reference page of all features, made from their declarations.

Write it with `python -m feature_repo.reference > docs/reference/features.md`.
"""

import inspect
from collections.abc import Iterator

from feature_repo.features import item, user
from streams.aggregates import Aggregate
from streams.profiles import Profile

READ = {
    "user": (
        "Read at the instant of the question. An event older than {lateness} behind the user's newest is late: "
        "counted, not applied."
    ),
    "item": "Read at the last closed tile, `floor(t - 10 s, 5 min)`: training and serving see the same numbers.",
}


def page() -> str:
    """The page, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from ("# Features", "")
    yield "Made by `python -m feature_repo.reference`; a test compares the two. Declared in `feature_repo/features.py`."
    yield "In Feast, and in training sets, a column is called `<profile>__<column>`."
    for profile in (user, item):
        yield from _columns(profile)
    yield from _aggregates()


def _columns(profile: Profile) -> Iterator[str]:
    yield from ("", f"## {profile.name.capitalize()} ({len(profile.columns)} columns)", "")
    yield READ[profile.name].format(lateness=profile.lateness)
    yield from ("", "| Column | Type | Default | Meaning | Made by |", "|---|---|---|---|---|")
    for feature in profile.features:
        for column in feature.columns:
            cells = (f"`{column.name}`", column.dtype, f"`{column.default}`", column.doc, f"`{type(feature).__name__}`")
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _aggregates() -> Iterator[str]:
    yield from ("", "## Aggregates", "", "What holds of each. *Order-free* ones may be used for items.", "")
    yield "| Aggregate | What it keeps | Merges | Order-free | Bounded by | Late events |"
    yield "|---|---|---|---|---|---|"
    seen: dict[type[Aggregate], Aggregate] = {}
    for profile in (user, item):
        for feature in profile.features:
            seen.setdefault(type(feature), feature)
    for kind, example in sorted(seen.items(), key=lambda pair: pair[0].__name__):
        what = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        free = "yes" if kind.order_free else "no"
        bound = f"{example.bound} (`{example.name}`)"
        yield f"| `{kind.__name__}` | {what} | {kind.mergeable} | {free} | {bound} | {kind.late_safe} |"


if __name__ == "__main__":
    print(page(), end="")

"""Feast views: each profile's state as bytes, and on-demand views that read it at an instant.

Feast runs the same on-demand function for training and for serving, so both see what `Profile.values` gives. Every
column of `feature_repo.features` becomes the feature `<profile>__<column>`; what each means is in
`docs/reference/features.md`, as Feast refuses descriptions here (it compares with inferred fields, which have none).
"""

from typing import Any

from feast import FeatureView, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, ComplexFeastType, Float64, Int64, PrimitiveFeastType, String

from feature_repo import entities
from feature_repo.features import item, user
from feature_repo.layout import STATE, VERSION, VIEWS
from feature_repo.sources import item_push, user_push
from streams.aggregates import Dtype
from streams.profiles import Profile

TYPES: dict[Dtype, ComplexFeastType | PrimitiveFeastType] = {
    "int64": Int64,
    "float64": Float64,
    "string[]": Array(String),
    "float64[]": Array(Float64),
}

asked_at = RequestSource(name="asked_at", schema=[Field(name="at", dtype=Int64)])
"""The instant to read at, in microseconds since the epoch."""


def _state_view(profile: Profile, **options: Any) -> FeatureView:
    return FeatureView(
        name=VIEWS[profile.name],
        schema=[Field(name=STATE[profile.name], dtype=Bytes), Field(name=VERSION[profile.name], dtype=Int64)],
        online=True,
        description=f"The state of each {profile.name}; read it at an instant with {profile.name}_values.",
        **options,
    )


user_state = _state_view(user, entities=[entities.user], source=user_push)
item_state = _state_view(item, entities=[entities.item], source=item_push)


def columns(profile: Profile) -> list[Field]:
    """A profile's columns as Feast features."""
    return [Field(name=f"{profile.name}__{c.name}", dtype=TYPES[c.dtype]) for c in profile.columns]


def read(profile: Profile, inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What an on-demand view gives: every column, for each pair of a state (None: never seen) and an instant."""
    states = inputs[f"{VIEWS[profile.name]}__{STATE[profile.name]}"]
    rows = [profile.values(state, at) for state, at in zip(states, inputs["at"], strict=True)]
    return {f"{profile.name}__{c.name}": [row[c.name] for row in rows] for c in profile.columns}


# Feast keeps the source of these two functions in its registry and runs it alone, so they import what they need.


@on_demand_feature_view(sources=[user_state, asked_at], schema=columns(user), mode="python")  # type: ignore[untyped-decorator]
def user_values(inputs: "dict[str, list[Any]]") -> "dict[str, list[Any]]":
    """Every user column at the instant `at`."""
    from feature_repo.features import user
    from feature_repo.views import read

    return read(user, inputs)


@on_demand_feature_view(sources=[item_state, asked_at], schema=columns(item), mode="python")  # type: ignore[untyped-decorator]
def item_values(inputs: "dict[str, list[Any]]") -> "dict[str, list[Any]]":
    """Every item column at the last tile that was closed at the instant `at`."""
    from feature_repo.features import item
    from feature_repo.views import read

    return read(item, inputs)

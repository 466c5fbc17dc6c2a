"""Feast entities: what profiles are keyed by."""

from feast import Entity, ValueType

from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile

user = Entity(
    name=user_profile.name,
    join_keys=[user_profile.key],
    value_type=ValueType.STRING,
    description="Somebody who does things with items.",
)
item = Entity(
    name=item_profile.name,
    join_keys=[item_profile.key],
    value_type=ValueType.STRING,
    description="Something that can be recommended.",
)

"""Feast services: the features that a model asks for by one name."""

from feast import FeatureService

from feature_repo.views import item_values, user_values

ranker = FeatureService(
    name="ranker",
    features=[user_values, item_values],
    description="All user and item values, as the cascade uses them.",
)

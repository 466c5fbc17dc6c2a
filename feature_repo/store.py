"""Opens Feast's own store on a deployment's settings. Importing Feast takes seconds and 700 MB: it happens late."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from freshet.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore


def open_store(settings: Settings) -> "FeatureStore":
    """Feast's store. `feature_store.yaml` takes its addresses from the environment, which is as it was afterwards."""
    from feast import FeatureStore

    before = dict(os.environ)
    os.environ.update(settings.as_env())
    try:
        return FeatureStore(repo_path=str(Path(__file__).parent))
    finally:
        os.environ.clear()
        os.environ.update(before)

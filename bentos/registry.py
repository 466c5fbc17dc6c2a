"""Which bundle is champion, and its files: MLflow's registry, read. Registering is left to `training.registry`.

MLflow is imported when the first question is asked: it costs three seconds and 180 MB.
"""

import os
import shutil
from pathlib import Path

from freshet.settings import Settings

CHAMPION = "champion"
"""The alias of the version that serves."""
SQLITE = "sqlite:///"
ARTIFACT = "bundle"
"""Folder of the bundle within its run's artifacts."""


def champion(settings: Settings) -> str | None:
    """The version that carries the alias, or None where no bundle was registered yet. Blocks."""
    if settings.mlflow_uri.startswith(SQLITE) and not Path(settings.mlflow_uri.removeprefix(SQLITE)).exists():
        return None  # asking would make the database, which takes a minute on a busy machine
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    try:
        return str(client.get_model_version_by_alias(settings.model_name, CHAMPION).version)
    except (MlflowException, RestException) as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def folder(settings: Settings, version: str) -> Path:
    """The files of a version, fetched once into the cache; `bentos.bundle.load` checks them. Blocks."""
    kept = settings.bundle_cache_dir / settings.model_name / version
    if kept.exists():
        return kept
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    source = (
        MlflowClient(settings.mlflow_uri, settings.mlflow_uri).get_model_version(settings.model_name, version).source
    )
    fetching = kept.with_name(f"{version}.fetching-{os.getpid()}")
    shutil.rmtree(fetching, ignore_errors=True)
    fetching.mkdir(parents=True)
    fetched = Path(download_artifacts(artifact_uri=source, dst_path=str(fetching), tracking_uri=settings.mlflow_uri))
    if not kept.exists():
        fetched.rename(kept)
    shutil.rmtree(fetching, ignore_errors=True)
    return kept

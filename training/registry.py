"""Registers a bundle in MLflow: its run with parameters, metrics and files, its version, its alias."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bentos.registry import ARTIFACT, CHAMPION
from freshet.settings import Settings

EXPERIMENT = "freshet"


def track(
    settings: Settings,
    bundle: Path,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    table: str,
    refused: Sequence[str],
) -> str | None:
    """Track a run with its table; register its bundle and make it champion unless there are reasons not to.

    Returns the version, None where it was refused: then the run keeps the reasons, and no bundle.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        local = settings.mlflow_uri.startswith("sqlite:")
        where = (settings.home / "mlflow-artifacts").as_uri() if local else None
        made = client.create_experiment(EXPERIMENT, artifact_location=where)
    else:
        made = experiment.experiment_id
    run = client.create_run(made)
    for name, value in parameters.items():
        client.log_param(run.info.run_id, name, value)
    for name, number in metrics.items():
        client.log_metric(run.info.run_id, name.replace("@", "_at_").replace(",", ""), number)
    client.log_text(run.info.run_id, table, "evaluation.md")
    if refused:
        client.log_text(run.info.run_id, "\n".join(refused), "refused.txt")
        client.set_terminated(run.info.run_id, status="FAILED")
        return None
    client.log_artifacts(run.info.run_id, str(bundle), ARTIFACT)
    client.set_terminated(run.info.run_id)
    try:
        client.create_registered_model(settings.model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/{ARTIFACT}"
    version = client.create_model_version(settings.model_name, source, run.info.run_id).version
    client.set_registered_model_alias(settings.model_name, CHAMPION, version)
    return str(version)

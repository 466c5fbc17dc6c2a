"""docker-compose.yml: what can be known without an engine, and `docker compose config` where there is a client."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from freshet.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
SECRETS = {"POSTGRES_PASSWORD": "x", "FRESHET_BUNDLE_KEY": "x", "GRAFANA_PASSWORD": "x"}


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def test_every_part_of_the_line_is_there_and_watched(services: dict[str, dict[str, Any]]) -> None:
    assert services.keys() >= {
        *("kafka", "redis", "postgres", "mlflow", "prometheus", "grafana"),
        *("setup", "worker", "sink-online", "sink-archive", "ingest", "serve"),
    }
    for name, service in services.items():
        assert "image" in service, name
        assert re.search(r":[\w.]*\d", service["image"]), f"{name}: pin the version of {service['image']}"
        assert "healthcheck" in service, name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would listen to everybody"


def test_what_services_name_exists(services: dict[str, dict[str, Any]]) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in volumes or (ROOT / source).exists(), f"{name} mounts {source}"
        for variable in service.get("environment", {}):
            if variable.startswith("FRESHET_"):
                assert variable.removeprefix("FRESHET_").lower() in Settings.model_fields, f"{name}: {variable}"
    assert (ROOT / "deploy" / "Dockerfile").is_file()


def test_no_secret_is_in_the_file() -> None:
    text = COMPOSE.read_text()
    for name in re.findall(r"^\s+(\w*(?:PASSWORD|KEY)):", text, re.MULTILINE):
        assert re.search(rf"{name}: \$\{{", text), f"{name} must come from the environment"
    example = (ROOT / "deploy" / ".env.example").read_text()
    assert all(re.search(rf"^{name}=$", example, re.MULTILINE) for name in SECRETS)


def test_rules_and_dashboard_ask_for_metrics_that_the_code_exports() -> None:
    code = "\n".join(p.read_text() for room in ("streams", "bentos", "monitoring") for p in (ROOT / room).rglob("*.py"))
    rules = yaml.safe_load((ROOT / "monitoring/rules/freshet.yml").read_text())
    dashboard = json.loads((ROOT / "monitoring/grafana/dashboards/freshet.json").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"freshet_\w+", expression)}
    assert len(names) >= 6
    for name in names:
        assert f'"{re.sub(r"_(total|bucket|count|sum)$", "", name)}"' in code, f"nothing exports {name}"


def test_docker_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose client here; the tests above have checked the file")
    done = subprocess.run(
        [docker, "compose", "-f", str(COMPOSE), "config", "--quiet"],
        env=os.environ | SECRETS,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()

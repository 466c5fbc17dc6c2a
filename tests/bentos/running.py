"""A real `bentoml serve` beside the session's Kafka and Redis, for tests that ask it over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from freshet.settings import Settings

START_S, STOP_S = 120, 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(settings: Settings, folder: Path, **changes: str) -> "Iterator[httpx.Client]":
    """A running service and a client of it."""
    port = free_port()
    env = os.environ | settings.as_env() | {"BENTOML_HOME": str(folder / "bentoml")} | changes
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "bentos.service:Recommender", "--port", str(port)]
    log = (folder / "serve.log").open("wb")
    with (
        log,
        subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                give_up = time.monotonic() + START_S
                while not _ready(client):
                    if process.poll() is not None or time.monotonic() > give_up:
                        pytest.fail((folder / "serve.log").read_text(errors="replace")[-3000:])
                    time.sleep(0.3)
                yield client
        finally:
            process.terminate()  # its own workers end with it only if it may end them
            process.wait(STOP_S)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def recommend(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found

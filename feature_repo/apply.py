"""`feast apply`, and whatever else Feast's own program does, with our settings: for the stack's setup and for tests.

A process of its own, as Feast takes its settings from the environment, and importing it costs 700 MB.
"""

import subprocess
import sys
from os import environ
from pathlib import Path

from freshet.settings import Settings

FOLDER = Path(__file__).resolve().parent


class ApplyError(RuntimeError):
    """Feast refused. Its own words are in the text."""


def feast(settings: Settings, *arguments: str) -> str:
    """What `feast -c feature_repo <arguments>` prints, run with these settings. Raises `ApplyError`."""
    program = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [program, "-c", FOLDER, *arguments],
        env=environ | settings.as_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ApplyError(f"feast {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout

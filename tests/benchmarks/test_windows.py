"""The job of `docs/how-to/own-job.md`: what a user of the engine writes is enough for it to fold."""

import os
import subprocess
import sys
from pathlib import Path

JOB = """
from benchmarks.engine.windows import WindowFold, app, cells
from streams.events import Event, encode
START = 1_780_000_000_000_000
fold = WindowFold(0)
fold.fold([(n, b"ada", encode(Event(f"e{n}", "ada", "i", "view", START, START, 0.25))) for n in range(3)])
((key, row),) = fold.snapshot().rows
print(key.decode(), *((kind, size, count, total) for kind, size, _, count, total in cells(row)))
assert [stage.source for stage in app.stages] == ["events"]
"""


def test_the_job_of_the_how_to_folds(tmp_path: Path) -> None:
    env = os.environ | {"FRESHET_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", JOB], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ada ('view', 300, 3, 0.75) ('view', 3600, 3, 0.75)"

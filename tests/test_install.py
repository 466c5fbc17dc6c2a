"""What is installed from a source distribution where there is no compiler: the same machine code, the same rows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
COMPILED = ("streams/kernel", "bentos/stages/scan")
COUNTS = """
import bentos.stages.scan
from feature_repo.features import user
from streams.events import Event

events = [Event("e1", "u", "i", "view", 1_700_000_000_000_000, 1_700_000_000_000_000)]
assert user.compiled, "the kernel was not built, or does not know the declaration"
assert user.advance(None, events, 1) == user.advance_plainly(None, events, 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path(get_path("include"), "Python.h").exists(), reason="Python has no headers here")
def test_without_a_compiler_the_kernel_is_compiled_all_the_same(tmp_path: Path) -> None:
    source, nothing, there = tmp_path / "source", tmp_path / "nothing", tmp_path / "there"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "*.so", "*.c", "*.egg-info", "build", "tests"))
    nothing.mkdir()
    bare = os.environ | {"PATH": str(nothing), "CC": "cc"}
    uv = Path(sys.executable).with_name("uv")
    build = [uv, "build", "--quiet", "--python", sys.executable, "--out-dir", tmp_path, source]
    subprocess.run(build, env=bare, check=True)
    ZipFile(next(tmp_path.glob("*.whl"))).extractall(there)
    for name in COMPILED:
        assert b"clang version" in next(there.glob(f"{name}.*.so")).read_bytes()
    subprocess.run([sys.executable, "-c", COUNTS], cwd=there, check=True)

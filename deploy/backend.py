"""Setuptools as the build backend; for machines without a C compiler with Zig's, which is clang as a package."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote, split
from shutil import which
from sysconfig import get_config_var, get_path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the backend is setuptools', but for what is required

_NEEDED = (
    which(split(os.environ.get("CC") or get_config_var("CC") or "cc")[0]) is None
    and Path(get_path("include"), "Python.h").exists()
)
_REQUIRED = ["ziglang>=0.17,<0.18"] if _NEEDED else []

if _NEEDED:
    _CC = f"{quote(sys.executable)} -m ziglang cc -mcpu=baseline"  # by itself it would compile for this processor only
    os.environ |= {"CC": _CC, "LDSHARED": f"{_CC} -shared"}


def get_requires_for_build_wheel(config_settings: Mapping[str, str] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_REQUIRED]


def get_requires_for_build_editable(config_settings: Mapping[str, str] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_REQUIRED]

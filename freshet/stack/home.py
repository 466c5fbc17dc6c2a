"""The files by which a stack is known: its lock, its record `stack.json`, its settings `stack.env`, its key.

One home, one stack.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freshet.settings import ENV_FILE, KEY_FILE, Settings, variable

RECORD, LOCK = "stack.json", "stack.lock"


class AlreadyRuns(RuntimeError):
    """Another process holds this home."""


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold `home`, so that no second stack runs in it. The system lets go of it when the process ends, in any way."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRuns(f"a stack already runs in {home}") from None
        yield


def is_held(home: Path) -> bool:
    """Whether a stack runs in `home`."""
    if not (home / LOCK).exists():
        return False
    try:
        with held(home):
            return False
    except AlreadyRuns:
        return True


def read_record(home: Path) -> dict[str, Any] | None:
    """What `stack.json` says, or None when there is none."""
    file = home / RECORD
    return json.loads(file.read_text()) if file.exists() else None


def write_record(home: Path, record: dict[str, Any]) -> None:
    """Write `stack.json`. A reader sees the old one or the new one, never a part."""
    _write(home / RECORD, json.dumps(record, indent=1))


def drop_record(home: Path) -> None:
    """Remove `stack.json`: nothing runs any more."""
    (home / RECORD).unlink(missing_ok=True)


def write_env(settings: Settings) -> None:
    """Write `stack.env`: what was given or found, so that commands in another terminal see the same settings."""
    texts = settings.plain()
    names = sorted(settings.model_fields_set - {"home"})
    lines = [f"{variable(name)}={_quoted(text)}" for name in names if (text := texts[name]) is not None]
    about = "# Written by `freshet up`, read by every command. An environment variable goes before it."
    _write(settings.home / ENV_FILE, "\n".join([about, *lines, ""]))


def ensure_key(home: Path) -> None:
    """Make the key that signs this home's bundles, once."""
    if not (home / KEY_FILE).exists():
        _write(home / KEY_FILE, secrets.token_hex(32))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    fresh.replace(file)

"""Reads the house rules from `FRESHET_RULES_FILE` and looks every few seconds whether they have changed.

A file that cannot be read keeps the process from starting; later the rules that were read last stay, and the log and
`freshet_serve_rules_ok` say so.
"""

import asyncio
import logging
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec
from prometheus_client import Gauge

from bentos.stages.rules import NONE, Rules
from freshet.settings import Settings

LOOK_S = 2.0
MOST_BYTES = 1 << 20

OK = Gauge(
    "freshet_serve_rules_ok", "Whether the rules file could be read when it last changed.", multiprocess_mode="min"
)
log = logging.getLogger(__name__)


class BadRules(ValueError):
    """A file that is no rules. Its text says where, and what to do."""


def read(file: Path) -> Rules:
    """Raises `BadRules`."""
    try:
        data = file.read_bytes()
        if len(data) > MOST_BYTES:
            raise BadRules(f"{file} has {len(data)} bytes, at most {MOST_BYTES} are read")
        rules = msgspec.toml.decode(data, type=Rules)
    except OSError as error:
        raise BadRules(f"{file} cannot be read ({error.strerror}); see FRESHET_RULES_FILE") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRules(f"{file}: {error}; docs/how-to/rules.md shows what goes in") from error
    return msgspec.structs.replace(rules, mark=blake2b(data, digest_size=8).hexdigest())


class House:
    """`rules` are those that hold now."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.rules_file
        self._stamp = 0
        self._task: asyncio.Task[None] | None = None
        self.rules = NONE

    def start(self) -> None:
        """Read them, then watch. Raises `BadRules`."""
        if self._file is not None:
            self.rules, self._stamp = read(self._file), self._file.stat().st_mtime_ns
            OK.set(1)
            log.info("house rules of %s: %s", self._file, self.rules.mark)
            self._task = asyncio.create_task(self._watch(self._file))

    async def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def look(self, file: Path) -> None:
        """Read them again if the file has changed."""
        try:
            stamp = file.stat().st_mtime_ns
        except OSError:
            stamp = 0
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.rules = read(file)
            OK.set(1)
            log.info("new house rules: %s", self.rules.mark)
        except BadRules as error:
            OK.set(0)
            log.error("the house rules stay as they were: %s", error)

    async def _watch(self, file: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(file)

"""The bundle that serves: loaded at the start and anew when the champion changes, swapped as one reference."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from bentos import registry
from bentos.bundle import BadBundle, Bundle, load
from bentos.meters import BUNDLE
from freshet.settings import Settings

POLL_S = 2.0
"""A question to a local registry takes 2 ms."""

log = logging.getLogger(__name__)


class Champion:
    """`bundle` is None until there is one that may be trusted."""

    def __init__(self, settings: Settings, warm: Callable[[Bundle], None]) -> None:
        """`warm` is given each new bundle on a thread before it serves; one on which it raises is not used."""
        self._settings = settings
        self._warm = warm
        self._task: asyncio.Task[None] | None = None
        self._refused: str | None = None
        self.bundle: Bundle | None = None

    async def start(self) -> None:
        """Look once, then begin to watch."""
        await self.look()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Load the champion if it is another one. What serves stays when the new one cannot be loaded."""
        try:
            version = await asyncio.to_thread(registry.champion, self._settings)
            if version is None or version == self._refused or (self.bundle and self.bundle.version == version):
                return
            self.bundle = await asyncio.to_thread(self._load, version)
            BUNDLE.set(int(version))
            log.info("bundle %s serves", version)
        except BadBundle as error:
            self._refused = version
            log.error("bundle %s is not used: %s", version, error)
        except (
            Exception
        ) as error:  # the registry may be away for any reason of its own; serving goes on with what it has
            log.warning("the registry at %s does not answer: %r", self._settings.mlflow_uri, error)

    def _load(self, version: str) -> Bundle:
        folder, key = registry.folder(self._settings, version), self._settings.signing_key()
        try:
            bundle = load(folder, key, version)
            self._warm(bundle)
        except BadBundle:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
            raise BadBundle(f"it does not load, or cannot answer: {error!r}") from error
        return bundle

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.look()

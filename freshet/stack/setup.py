"""The part that runs once: makes the topics and applies the feature repository. Doing it again changes nothing."""

import asyncio
import subprocess
import sys
from pathlib import Path

from freshet.settings import get_settings
from freshet.stack.plan import ROOT


def main() -> int:
    """Returns the exit code: 0 when topics and features are as declared."""
    from streams.topics import create_topics

    settings = get_settings()
    asyncio.run(create_topics(settings))
    feast = Path(sys.executable).parent / "feast"
    return subprocess.run([feast, "-c", str(ROOT / "feature_repo"), "apply"], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

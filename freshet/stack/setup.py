"""Makes the topics, and applies the feature repository. Doing it again changes nothing.

`python -m freshet.stack.setup [topics] [features]`, both when none is named. In the local stack they are two parts:
the topics are there in a second and everything waits for them, Feast takes ten and only training waits for it.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from freshet.settings import Settings, get_settings
from freshet.stack.plan import ROOT


def topics(settings: Settings) -> int:
    """Exit code 0 when the topics are as declared."""
    from streams.topics import create_topics

    asyncio.run(create_topics(settings))
    return 0


def features(settings: Settings) -> int:
    """Exit code 0 when Feast's registry is as declared."""
    feast = Path(sys.executable).parent / "feast"
    return subprocess.run([feast, "-c", str(ROOT / "feature_repo"), "apply"], check=False, cwd=ROOT).returncode


STEPS = {"topics": topics, "features": features}

if __name__ == "__main__":
    settings = get_settings()
    sys.exit(max(STEPS[name](settings) for name in sys.argv[1:] or STEPS))

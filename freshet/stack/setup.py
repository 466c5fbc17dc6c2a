"""Makes the topics, and applies the feature repository. Doing it again changes nothing.

`python -m freshet.stack.setup [topics] [features]`, both when none is named. In the local stack they are two parts:
the topics are there in a second and everything waits for them, Feast takes ten and only training waits for it.
"""

import asyncio
import sys

from freshet.settings import Settings, get_settings


def topics(settings: Settings) -> None:
    """Bring the topics to what is declared."""
    from streams.topics import create_topics

    asyncio.run(create_topics(settings))


def features(settings: Settings) -> None:
    """Bring Feast's registry to what is declared."""
    from feature_repo.apply import feast

    feast(settings, "apply")


STEPS = {"topics": topics, "features": features}

if __name__ == "__main__":
    for name in sys.argv[1:] or STEPS:
        STEPS[name](get_settings())

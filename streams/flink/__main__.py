"""`python -m streams.flink JAR ...`: runs the job with the settings, in the environment that has PyFlink.

`freshet flink` starts it with the jars that it needs. One job a home: two would take up the same checkpoint.
"""

import fcntl
import sys
from pathlib import Path

from pyflink.datastream import StreamExecutionEnvironment

from freshet.settings import get_settings
from streams.flink.job import build, configuration

settings = get_settings()
state = settings.home / "flink"
state.mkdir(parents=True, exist_ok=True)
with (state / "lock").open("w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"a Flink job already runs in {settings.home}")
    env = StreamExecutionEnvironment.get_execution_environment(
        configuration(settings, state, [Path(jar) for jar in sys.argv[1:]])
    )
    build(env, settings)
    try:
        env.execute(settings.topic(settings.app_id))
    except KeyboardInterrupt:
        sys.exit("stopped; the next start goes on from the newest checkpoint")

"""`python -m streams.flink JAR ...`: runs the job with the settings, in the environment that has PyFlink.

`freshet flink` starts it with the jars that it needs.
"""

import sys
from pathlib import Path

from pyflink.datastream import StreamExecutionEnvironment

from freshet.settings import get_settings
from streams.flink.job import build, configuration

settings = get_settings()
env = StreamExecutionEnvironment.get_execution_environment(configuration(settings, [Path(jar) for jar in sys.argv[1:]]))
build(env, settings)
env.execute(settings.topic(settings.app_id))

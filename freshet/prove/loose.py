"""`python -m freshet.prove.loose JAR ...`: the Flink job whose sink delivers at least once. The negative control."""

import runpy

from streams.flink import job

if __name__ == "__main__":
    job.GUARANTEE = "AT_LEAST_ONCE"
    runpy.run_module("streams.flink", run_name="__main__", alter_sys=True)

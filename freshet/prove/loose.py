"""`python -m freshet.prove.loose JAR ...`: the Flink job whose sink delivers at least once. The negative control.

Its batches are small, so that something is written between two checkpoints, too.
"""

import runpy

from streams.flink import job

if __name__ == "__main__":
    job.GUARANTEE, job.GATHERED = "AT_LEAST_ONCE", 20
    runpy.run_module("streams.flink", run_name="__main__", alter_sys=True)

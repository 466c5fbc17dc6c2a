"""The line's two stages as one Flink job: the same folds, with their states in Flink's checkpoints.

`keyed` runs a fold on keyed state and knows nothing of Flink; `job` is the PyFlink job around it, and the only module
that imports PyFlink, which lives in an environment of its own (`freshet.stack.flink`). `Transport.java` is what
PyFlink cannot say. The topics are those of the Faust worker, record for record, so sinks, backfill and the oracle
cannot tell the two apart.
"""

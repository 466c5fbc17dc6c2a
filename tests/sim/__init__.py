"""A deterministic simulation: the engine's and the sink's own code over a model of Kafka and Redis, on virtual time.

`clock` is the loop and the processes on it, `broker` and `store` the models, `worker` what Faust does around a stage,
`world` one schedule from its seed, `checks` what must hold after it, `controls` the mutations that must be caught.
`python -m tests.sim --schedules N --seed S` explores.
"""

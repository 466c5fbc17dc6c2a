"""The pure fold of one source partition: records in, rows in memory, a snapshot of what changed out.

No Kafka, no asyncio and no disk here: the worker's engine, the Flink job and the backfill run these same classes, and
the law tests run them alone. `users` folds `events`, `items` folds `item-deltas`; `states` is what both share, `ring`
remembers ids, `deltas` go from one to the other, `records` and `rows` are the shapes.
Where a snapshot is written is left to whoever runs a fold.
"""

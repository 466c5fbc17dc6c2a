"""The engine: exactly-once stages on Faust's consumer, each source partition with a transactional producer of its own.

`transport` brings batches. `states`, `fold` and `ring` are the pure state, `records` what it writes. `rows` keeps rows
in memory, in a `checkpoint` and in a `spill`. `transaction` is one commit of `batches`, `restore` reads a state back,
`owner` is one partition of ours, `stage` all those of an agent.
What an event means is left to `streams.profiles`; which stages there are, to `streams.agents`.
"""

"""The engine: exactly-once stages on Faust's consumer, each source partition with a transactional producer of its own.

`transport` brings batches, `fold` is the pure state (with `ring` for duplicates), `transaction` writes one commit,
`restore` reads a state back, `owner` is one partition of ours, `stage` all partitions of an agent, through rebalances.
What an event means is left to `streams.profiles`; which stages there are, to `streams.agents`.
"""

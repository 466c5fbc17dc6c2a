"""The engine: exactly-once stages on Faust's consumer, each source partition with a transactional producer of its own.

`stage` has the partitions of an agent, `owner` is one of them: `transport` brings it batches, a fold (`streams.fold`)
changes its rows, `transaction` is one commit of them as `batches`. `kept` keeps the rows in memory, in a `checkpoint`
and in a `spill`; `restore` reads them back, `standby` does so ahead of time.
What an event means is left to the folds; which stages there are, to `streams.agents`.
"""

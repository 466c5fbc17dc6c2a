"""Sinks: what the stream has made, carried to where it is read.

`online` writes states to Redis, `archive` raw topics to Parquet.
"""

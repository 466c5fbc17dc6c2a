"""The backfill: the worker's own fold over the archived events, into the offline store that Feast reads."""

from streams.backfill.run import BackfillError, BackfillReport, backfill

__all__ = ["BackfillError", "BackfillReport", "backfill"]

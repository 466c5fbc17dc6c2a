"""The backfill: the worker's own fold over the archived events, into the offline store that Feast reads."""

from streams.backfill.rows import BackfillError
from streams.backfill.run import BackfillReport, backfill

__all__ = ["BackfillError", "BackfillReport", "backfill"]

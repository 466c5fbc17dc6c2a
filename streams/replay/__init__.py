"""Replay: history from files, sent as events in the order in which it happened, at any speed, each event once."""

from streams.replay.amazon import AmazonReviews
from streams.replay.interactions import BadSource, Source
from streams.replay.movielens import MovieLens
from streams.replay.player import ReplayReport, play, replay
from streams.replay.table import Table

__all__ = ["AmazonReviews", "BadSource", "MovieLens", "ReplayReport", "Source", "Table", "play", "replay"]

"""Simulate: a planted world whose users have hidden tastes; its past, its present, and the loop that measures lift."""

from streams.simulate.covers import cover_svg
from streams.simulate.history import History, plant, run
from streams.simulate.live import LiveReport, flow, live
from streams.simulate.loop import LoopReport, closed_loop, shop
from streams.simulate.world import World, WorldSpec

__all__ = [
    "History",
    "LiveReport",
    "LoopReport",
    "World",
    "WorldSpec",
    "closed_loop",
    "cover_svg",
    "flow",
    "live",
    "plant",
    "run",
    "shop",
]

"""The line's worker: `faust -A streams.app worker -l info --without-web`."""

import gc

import mode.loop

from freshet.settings import get_settings
from streams.agents import stages
from streams.engine.instance import named
from streams.worker import create_app

mode.loop.use("uvloop")
gc.set_threshold(100_000, 50, 100)  # folding makes many short-lived objects and no cycles
settings = named(get_settings())
app = create_app(settings, stages(settings))

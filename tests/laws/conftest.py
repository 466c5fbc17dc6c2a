"""The laws run on few examples, to keep the suite short; `--hypothesis-profile=thorough` runs many."""

from hypothesis import settings

settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=2_000, deadline=None)
settings.load_profile("quick")

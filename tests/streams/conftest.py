"""Property tests of this room: few examples, no deadline, as in `tests/laws`."""

from hypothesis import settings

settings.register_profile("quick", max_examples=40, deadline=None)
settings.load_profile("quick")

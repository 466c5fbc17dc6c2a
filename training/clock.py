"""Times the steps of a training by name, and tells of their progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from streams.catalogue import Progress


@dataclass
class Clock:
    """`seconds` adds up the time of each name."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Time a block; it may call what it is given with how much is done."""
        start = perf_counter()

        def tell(done: int) -> None:
            if self.progress is not None:
                self.progress(name, done, total)

        tell(0)
        yield tell
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start
        if total is not None:
            tell(total)

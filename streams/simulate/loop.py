"""The closed loop: planted users ask for recommendations and act on them, so that lift is measured online.

Each user belongs to one arm for good, by a hash. What a user does is left to `shopper`, the arithmetic to `lift`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from freshet.settings import Settings
from streams.aggregates import hash64
from streams.catalogue import Progress
from streams.events import Micros
from streams.simulate.client import Client, Latency
from streams.simulate.lift import Lift, lift
from streams.simulate.shopper import Response, Shopper, choose_users
from streams.simulate.world import Ints, World, WorldSpec

REQUESTS_A_SESSION = 4
THINK_S = 0.3
"""Between a list and the user's next one: about as long as a click needs to become a feature."""

GIVE_UP = 5
"""Failures without a single success after which the loop ends at once."""


class ArmReport(msgspec.Struct, frozen=True):
    """What one arm achieved. Rates are clicks per item shown; `expected_ctr` is free of the luck of the clicks,
    `best_ctr` is that of an oracle that knows every taste, asked by the same users at the same times."""

    arm: str
    users: int
    requests: int
    shown: int
    clicks: int
    purchases: int
    ctr: float
    expected_ctr: float
    best_ctr: float
    fallbacks: int


class LoopReport(msgspec.Struct, frozen=True):
    """What a closed loop measured. `lift` is that of the first arm over the second; None with one arm only."""

    seed: int
    arms: list[ArmReport]
    lift: Lift | None
    recommend: Latency
    ingest: Latency
    events: int
    refused: int
    errors: int
    last_error: str | None
    seconds: float


@dataclass
class _Tally:
    """Sums of one arm; `users` holds clicks and impressions of each."""

    users: dict[str, list[int]] = field(default_factory=dict)
    requests: int = 0
    purchases: int = 0
    expected: float = 0.0
    best: float = 0.0
    fallbacks: int = 0

    def add(self, user_id: str, shown: int, response: Response, fallback: bool) -> None:
        counts = self.users.setdefault(user_id, [0, 0])
        counts[0] += response.clicks
        counts[1] += shown
        self.requests += 1
        self.purchases += response.purchases
        self.expected += response.expected
        self.best += response.best
        self.fallbacks += fallback

    def counts(self) -> Ints:
        return np.array(list(self.users.values()), np.int64).reshape(-1, 2)

    def report(self, arm: str) -> ArmReport:
        clicks, shown = self.counts().sum(axis=0).tolist()
        per = max(shown, 1)
        return ArmReport(
            arm=arm, users=len(self.users), requests=self.requests, shown=shown, clicks=clicks,
            purchases=self.purchases, ctr=clicks / per, expected_ctr=self.expected / per, best_ctr=self.best / per,
            fallbacks=self.fallbacks,
        )  # fmt: skip


class _Loop:
    """What the workers of a closed loop share: who still comes, who is there now, and the tallies."""

    def __init__(
        self, world: World, at: Micros, seed: int, requests: int, arms: Sequence[str], k: int, think_s: float,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._world, self._at, self._seed, self._arms, self._k, self._think_s = world, at, seed, arms, k, think_s
        self._requests, self._progress = requests, progress
        rng = np.random.default_rng((seed, 2))
        users = choose_users(world, -(-requests // REQUESTS_A_SESSION), at, rng).tolist()
        self._waiting = deque(enumerate(users))
        self._busy: set[int] = set()
        self._left = requests
        self.tallies = {arm: _Tally() for arm in arms}

    async def work(self, client: Client) -> None:
        """Let one user after the other have a session, until all have had theirs."""
        while self._waiting:
            number, user = self._waiting.popleft()
            if user in self._busy:  # nobody shops twice at a time: this session comes later
                self._waiting.append((number, user))
                await asyncio.sleep(0.01)
                continue
            turns = min(REQUESTS_A_SESSION, self._left)
            self._left -= turns
            self._busy.add(user)
            await self._session(client, number, user, turns)
            self._busy.discard(user)

    async def _session(self, client: Client, number: int, user: int, turns: int) -> None:
        session_id = f"loop-{self._seed}-{self._at}-{number}"
        shopper = Shopper(self._world, user, self._at, session_id, (self._seed, number))
        for turn in range(turns):
            await self._turn(client, shopper)
            if self._progress:
                self._progress("requests", sum(t.requests for t in self.tallies.values()), self._requests)
            if turn + 1 < turns:
                await asyncio.sleep(self._think_s)

    async def _turn(self, client: Client, shopper: Shopper) -> None:
        """One list, and what the user does with it. It counts only when both serving and ingest took part."""
        arm = arm_of(shopper.user_id, self._arms, self._seed)
        answer = await client.recommend(shopper.user_id, self._k, arm)
        if answer is None:
            if not client.sent and client.errors >= GIVE_UP:
                raise ConnectionError(client.last_error)
            return
        shown = [item["item_id"] for item in answer["items"]]
        response = shopper.respond(shown, answer["request_id"])
        for n, event in enumerate(response.events):
            event["event_id"] = f"{answer['request_id']}-{n}"
        if await client.send(response.events):
            self.tallies[arm].add(shopper.user_id, len(shown), response, bool(answer.get("fallback")))


def arm_of(user_id: str, arms: Sequence[str], seed: int) -> str:
    """The arm of a user: the same in every process, for one seed."""
    return arms[hash64(f"{seed}:{user_id}") % len(arms)]


def closed_loop(
    settings: Settings, requests: int = 4_000, arms: Sequence[str] = ("champion", "popular"), seed: int = 1,
    concurrency: int = 16, k: int = 10, think_s: float = THINK_S, world: World | None = None,
    progress: Progress | None = None,
) -> LoopReport:  # fmt: skip
    """`shop`, for callers without an event loop."""
    return asyncio.run(shop(settings, requests, arms, seed, concurrency, k, think_s, world, progress))


async def shop(
    settings: Settings, requests: int = 4_000, arms: Sequence[str] = ("champion", "popular"), seed: int = 1,
    concurrency: int = 16, k: int = 10, think_s: float = THINK_S, world: World | None = None,
    progress: Progress | None = None,
) -> LoopReport:  # fmt: skip
    """Let users of the home folder's world make `requests` requests for k items, `concurrency` users at a time.

    Raises `ConnectionError` when serving or ingest answers nothing at all; single failures are counted in the report.
    """
    world = world or World(WorldSpec.load(settings))
    began, at = time.monotonic(), time.time_ns() // 1000
    loop = _Loop(world, at, seed, requests, arms, k, think_s, progress)
    async with Client(settings, 2 * concurrency) as client:
        failed: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(loop.work(client))
        except* ConnectionError as errors:
            failed = errors.exceptions[0]  # raised in here, it might come in a group again
        if failed is not None:
            raise failed
    tallies = loop.tallies
    compared = lift(tallies[arms[0]].counts(), tallies[arms[1]].counts(), seed) if len(arms) > 1 else None
    return LoopReport(
        seed=seed, arms=[tally.report(arm) for arm, tally in tallies.items()], lift=compared,
        recommend=Latency.of(client.asked_s), ingest=Latency.of(client.sent_s), events=client.sent,
        refused=client.refused, errors=client.errors, last_error=client.last_error, seconds=time.monotonic() - began,
    )  # fmt: skip

"""A simulated day of the whole cascade beside its rivals: `python -m benchmarks.loop.day --events 500000`.

A world with hidden tastes is planted up to an instant and trained on by the usual commands (a broker of its own,
`freshet backfill`, `freshet train`). Then a day is lived in its own time, in this process: users come by their
activity, ask for ten items, act as taste and the session's intent say, and every event is folded by the same profiles
before the next question. Each arm lives the same day, with the same users, dice and history, by its own feedback. Items
that are born in that day are unknown to the training.

Arms: the bundle that was trained, with and without exploring; ALS (`implicit`, factors fitted up to the instant, the
user recomputed from the live history) with what is trending for those without a history; what was liked most in seven
days; and an oracle that knows every hidden taste, but not what the session is after, once free to show what the user
has liked or bought already, as no other arm is, and once not. `best` knows what the session is after, too. Rates are
what is to be expected of the lists, clicks an item shown, without the luck of the clicks; intervals are bootstraps over
users. A new item's fair exposure is what the oracle of tastes gives to items in their first 24 hours. New users are
asked for after so many events that they made on their own.

`--learning` adds an arm whose order is corrected by a residual that learns from what its lists got
(`benchmarks.loop.residual`). `--losses` adds what other orders of what Freshet knew would have got from the same users
at the same moments, without feedback: where the way to the oracle of tastes is lost.
"""

import argparse
import asyncio
import heapq
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.loop.arms import LEARNING, K, Lister, Shop, listers, losing, oracle
from benchmarks.loop.residual import Residual
from bentos import bundle
from bentos.registry import champion, folder
from feature_repo.apply import feast
from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile
from freshet.prove.rig import Plan, Rig
from freshet.settings import get_settings
from streams.aggregates import DAY, HOUR, SECOND
from streams.catalogue import Item
from streams.events import Event, Micros
from streams.replay.player import play
from streams.simulate.history import History
from streams.simulate.sessions import IMPRESSION, KINDS, Visits, act, draw_visits
from streams.simulate.shopper import EventBody, Shopper
from streams.simulate.world import Floats, World, WorldSpec, examined
from training.baselines import baselines
from training.datasets import Question, read_log

DAYS, TURNS, TURN_S = 30, 4, 60
NEW_USERS, FIRST = 300, (1, 3, 5, 10)
OLD: Micros = 3 * HOUR
KEY = "benchmark" * 4


@dataclass(frozen=True)
class Until(History):
    """A history whose items are only those that were there by an instant."""

    until: Micros = 0

    def items(self) -> Iterator[Item]:
        return (item for item in self.world.catalogue if (item.created_at or 0) < self.until)


def event_of(body: EventBody, event_id: str, at: Micros, categories: tuple[str, ...]) -> Event:
    return Event(
        event_id, body["user_id"], body["item_id"], body["type"], at, at, body.get("value"), categories, {},
        body["session_id"], body["request_id"],
    )  # fmt: skip


@dataclass
class Day:
    """What one arm achieved."""

    expected: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By user: expected clicks an item shown, of each list."""
    best: list[float] = field(default_factory=list)
    new: int = 0
    shown: int = 0
    later: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of `expected`, the lists from the third hour on: by then the model is three hours old."""
    others: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """What each of the shop's other lists would have got."""


def live(shop: Shop, lister: Lister, visits: Visits, seed: int) -> Day:
    """One day: every visit's turns in the order of time."""
    world, day = shop.world, Day()
    turns = [(int(at), n, 0) for n, at in enumerate(visits.at.tolist())]
    old = int(visits.at[0]) + OLD
    heapq.heapify(turns)
    shoppers: dict[int, Shopper] = {}
    pending: list[tuple[Micros, int, Event]] = []
    categories = {item.item_id: item.categories for item in world.catalogue}
    while turns:
        now, n, turn = heapq.heappop(turns)
        while pending and pending[0][0] <= now:
            shop.tell(heapq.heappop(pending)[2])
        user = int(visits.user[n])
        shopper = shoppers.pop(n, None) or Shopper(world, user, int(visits.at[n]), f"day-{n}", (seed, n))
        found = lister(shop, user, world.user_ids[user], now)
        response = shopper.respond(found, f"day-{n}-{turn}")
        day.expected[user].append(response.expected / max(1, len(found)))
        if now >= old:
            day.later[user].append(response.expected / max(1, len(found)))
        day.best.append(response.best / max(1, len(found)))
        for name, other in shop.others.items():
            day.others[name].append(shopper.expected(other) / max(1, len(other)))
        day.shown += len(found)
        day.new += sum(now - int(world.born[world.item_number[i]]) < DAY for i in found)
        for m, body in enumerate(response.events):
            at = now + (2 + 2 * m) * SECOND // 2
            event = event_of(body, f"day-{n}-{turn}-{m}", at, categories[body["item_id"]])
            heapq.heappush(pending, (at, shop.version + len(pending) + m, event))
        if turn + 1 < TURNS:
            shoppers[n] = shopper
            heapq.heappush(turns, (now + TURN_S * SECOND, n, turn + 1))
    return day


def fold(history: History, until: Micros) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The rows of all users and items after the events before an instant."""
    users, items = defaultdict[str, list[Event]](list), defaultdict[str, list[Event]](list)
    for event in events_of(history, until):
        users[event.user_id].append(event)
        items[event.item_id].append(event)
    return (
        {key: user_profile.advance(None, some, 0) for key, some in users.items()},
        {key: item_profile.advance(None, some, 0) for key, some in items.items()},
    )


def events_of(history: History, until: Micros) -> Iterator[Event]:
    world, columns = history.world, history.columns
    catalogue = world.catalogue
    for n in np.flatnonzero(columns.at < until).tolist():
        item, at, value = catalogue[int(columns.item[n])], int(columns.at[n]), float(columns.value[n])
        yield Event(
            f"h{n}", world.user_ids[int(columns.user[n])], item.item_id, KINDS[int(columns.kind[n])], at, at,
            None if np.isnan(value) else value, item.categories, {}, f"h{columns.session[n]}",
        )  # fmt: skip


def newcomers(world: World, shop: Shop, arms: dict[str, Lister], start: Micros) -> dict[int, dict[str, list[float]]]:
    """Expected clicks an item shown, by tastes alone, of users with their first few events: count -> arm -> each."""
    rng = np.random.default_rng(5)
    found: dict[int, dict[str, list[float]]] = {m: defaultdict(list) for m in FIRST}
    seen = examined(K)
    for n in range(NEW_USERS):
        user = int(rng.integers(world.spec.users))
        made = act(world, Visits(np.repeat(user, 8), np.repeat(start, 8), np.repeat(-1, 8)), 0, rng)
        made = made.rows(made.kind != IMPRESSION)
        made = made.rows(np.argsort(made.at, kind="stable"))
        some, row = f"new-{n}", None
        chance = oracle(world, user, start)
        for m in range(min(max(FIRST), len(made))):
            item = world.catalogue[int(made.item[m])]
            kind, at, value = KINDS[int(made.kind[m])], start - (max(FIRST) - m) * SECOND, float(made.value[m])
            event = Event(
                f"{some}-{m}", some, item.item_id, kind, at, at, None if np.isnan(value) else value, item.categories
            )
            row = user_profile.advance(row, [event], m)
            if m + 1 in FIRST:
                shop.users[some] = row
                for name, lister in arms.items():
                    numbers = [world.item_number[i] for i in lister(shop, user, some, start)]
                    found[m + 1][name].append(float(chance[numbers] @ seen[: len(numbers)]) / K)
    return found


def trained(
    folder_: Path, world: World, events: int, start: Micros
) -> tuple[Any, Callable[[Question], Floats], History]:
    """Plant the world up to the instant and train on it, by the usual commands."""
    history = Until(world, events, start)
    with Rig(folder_ / "rig", get_settings().cache_dir, Plan(workers=0, online_sinks=0)) as rig:
        settings = rig.settings
        feast(settings, "apply")
        asyncio.run(play(settings, history, end=start))
        env = os.environ | settings.as_env() | {"FRESHET_BUNDLE_KEY": KEY}
        for command in (["backfill"], ["train", "--protocol", "static", "--json"]):
            subprocess.run([sys.executable, "-m", "freshet", *command], env=env, check=True, stdout=subprocess.DEVNULL)
        version = champion(settings)
        assert version is not None
        cascade = bundle.load(folder(settings, version), KEY.encode(), version).cascade
        log = read_log(settings, list(cascade.recall.index))
        als, _ = baselines(log.matrix(len(log)))["ALS"]()
        return cascade, als, history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=3_000)
    parser.add_argument("--visits", type=int, default=2_500, help="sessions of four lists (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--learning", action="store_true", help="an arm with a residual that learns from its lists")
    parser.add_argument("--losses", action="store_true", help="what other orders of what Freshet knew would have got")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    end = 1_780_000_000_000_000 // DAY * DAY
    start = end - DAY
    world = World(WorldSpec(given.seed, given.events // 100, given.items, end - (DAYS + 1) * DAY, end))
    with tempfile.TemporaryDirectory(prefix="freshet-day-") as temporary:
        cascade, als, history = trained(Path(temporary), world, given.events, start)
    users, items = fold(history, start)
    first = list(cascade.recall.index)
    visits = draw_visits(world, given.visits, start, end - 10 * 60 * SECOND, np.random.default_rng((given.seed, 9)))
    arms = listers(cascade, als)
    if not given.learning:
        del arms[LEARNING]
    if given.losses:
        arms["Freshet"] = losing(cascade, arms["Freshet"])
    days = {}
    for name, lister in arms.items():
        shop = Shop(world, first, dict(users), dict(items))
        days[name] = live(shop, lister, visits, given.seed)
        print(name, flush=True, file=sys.stderr)
        if name == LEARNING:
            learned(shop.residual, days)
    report(days, newcomers(world, Shop(world, first, dict(users), dict(items)), arms, start), given)


def learned(residual: Residual, days: dict[str, Day]) -> None:
    """What the residual gained over the same model without it."""
    for name, part in (("the day", "expected"), (f"from hour {OLD // HOUR} on", "later")):
        mine, other = (getattr(days[arm], part) for arm in (LEARNING, "Freshet"))
        lists = np.array([len(x) for x in mine.values()])
        lift, low, high = _ratio(*(np.array([np.mean(x) for x in of.values()]) for of in (mine, other)), lists)
        print(f"{LEARNING} over Freshet, {name}: {lift:+.1%} [{low:+.1%}, {high:+.1%}]; {sum(lists)} lists")
    n = residual.examples
    print(f"its log loss {residual.loss / n:.4f}, of level and place alone {residual.frozen / n:.4f}; {n} examples")


def report(days: dict[str, Day], newly: dict[int, dict[str, list[float]]], given: argparse.Namespace) -> None:
    rate = {name: np.array([np.mean(x) for x in day.expected.values()]) for name, day in days.items()}
    lists = {name: np.array([len(x) for x in day.expected.values()]) for name, day in days.items()}
    ctr = {name: float(np.average(rate[name], weights=lists[name])) for name in days}
    best = float(np.mean(days["Freshet"].best))
    fair = days["oracle of tastes"].new / days["oracle of tastes"].shown
    table = Table(
        "arm", "expected clicks an item", "of the oracle of tastes", "of the best", "new items' exposure", "of fair"
    )
    for name, day in days.items():
        share = day.new / day.shown
        table.add_row(
            name, f"{ctr[name]:.4f}", f"{ctr[name] / ctr['oracle of tastes']:.1%}", f"{ctr[name] / best:.0%}",
            f"{share:.2%}", f"{share / fair:.0%}",
        )  # fmt: skip
    Console().print(table)
    lifts = {}
    for name in ("Freshet exploring", "Freshet"):
        lift, low, high = lifts[name] = _ratio(rate[name], rate["ALS + trending"], lists[name])
        print(f"{name} over ALS + trending: {lift:+.1%} [{low:+.1%}, {high:+.1%}]; {sum(lists[name])} lists an arm")
    for name, each in days["Freshet"].others.items():
        print(f"{name}: {np.mean(each):.4f}, {np.mean(each) / ctr['oracle of tastes']:.0%}, {len(each)} lists")
    for m, by in newly.items():
        mine, other = np.array(by["Freshet"]), np.array(by["popularity, 7 days"])
        low, high = _spread(mine - other)
        print(
            f"new users after {m} events: Freshet {mine.mean():.4f}, popularity {other.mean():.4f}, ALS + trending "
            f"{np.mean(by['ALS + trending']):.4f}; Freshet - popularity {(mine - other).mean():+.4f} "
            f"[{low:+.4f}, {high:+.4f}]"
        )
    if given.json:
        given.json.write_text(json.dumps({"ctr": ctr, "best": best, "lifts": lifts}))


def _ratio(mine: Floats, other: Floats, weight: Floats) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(mine), (2_000, len(mine)))
    ratios = (mine * weight)[picks].sum(1) / (other * weight)[picks].sum(1) - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float((mine * weight).sum() / (other * weight).sum() - 1), float(low), float(high)


def _spread(values: Floats) -> Sequence[float]:
    rng = np.random.default_rng(0)
    return np.quantile(values[rng.integers(0, len(values), (2_000, len(values)))].mean(1), [0.025, 0.975]).tolist()


if __name__ == "__main__":
    main()

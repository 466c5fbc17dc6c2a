"""A whole training on the real parts: archive, backfill, Feast, MLflow, and the bundle that serving then loads."""

import asyncio
import random

import pytest

from bentos import bundle, registry
from bentos.cascade import Ask
from feature_repo.apply import feast
from feature_repo.features import user as user_profile
from freshet.settings import Settings
from streams.backfill import backfill
from streams.catalogue import Item, send_items
from streams.events import Event
from streams.publisher import Publisher
from tests.streams.folded import SECOND, START, archive, partitioned
from training import parameters
from training.datasets import NoData
from training.evaluation import WHOLE
from training.exposure import DIALS
from training.parameters import BadParameters
from training.pipeline import PROTOCOLS, train
from training.registry import track
from training.tuning import tune

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]

GROUPS, OF_GROUP, USERS, EACH = 3, 20, 160, 12


def planted() -> list[Event]:
    """Each user likes items of one group, one in eight of another."""
    chance, wishes = random.Random(4), []
    for user in range(USERS):
        mine = chance.sample(range(OF_GROUP), EACH)
        groups = [user % GROUPS if chance.random() > 0.125 else chance.randrange(GROUPS) for _ in mine]
        wishes += [(f"u{user}", f"i{group * OF_GROUP + n}", n) for n, group in zip(mine, groups, strict=True)]
    chance.shuffle(wishes)
    return [
        Event(f"e{k}", user, item, "click", START + k * 900 * SECOND, START + k * 900 * SECOND, None, (f"c{n % 4}",))
        for k, (user, item, n) in enumerate(wishes)
    ]


async def send(settings: Settings) -> None:
    items = [Item(f"i{n}", f"Item {n}", (f"c{n % OF_GROUP % 4}",)) for n in range(GROUPS * OF_GROUP)]
    async with Publisher(settings) as publisher:
        await send_items(publisher, items)


def test_a_training_ends_in_a_bundle_that_serves(settings: Settings) -> None:
    asyncio.run(send(settings))
    archive(settings, partitioned(settings, planted()))
    feast(settings, "apply")
    backfill(settings, archived_only=True)
    steps: list[str] = []
    report = train(settings, threads=1, progress=lambda step, done, total: steps.append(step))

    assert report.liked >= 1_500
    assert report.audited > 5_000
    assert {r.protocol for r in report.results} == set(PROTOCOLS)
    prequential = {r.model: r.metrics["NDCG@10"] for r in report.results if r.protocol == "prequential"}
    assert prequential[WHOLE] > 1.3 * prequential["popularity"]
    assert prequential["EASE"] > 1.3 * prequential["popularity"]
    assert {"audit", "register", "evaluate static"} <= set(steps)

    assert report.dials[0].change == (0, 0, 0)
    assert all(d.short > 0 or d.tail >= DIALS[d.rule].least_tail_exposure for d in report.dials)

    assert report.gate.reasons == []
    assert report.gate.over_popularity.low > 0
    behind = {r.model: r.behind for r in report.results if r.protocol == "prequential"}
    assert behind["popularity"] is not None
    assert behind["popularity"].low > 0, "the planted tastes are worth more than chance"

    version = registry.champion(settings)
    assert version == report.version
    assert track(settings, registry.folder(settings, version), {}, {}, "a table", ["it is worse"]) is None
    assert registry.champion(settings) == version, "what is refused is no version"
    loaded = bundle.load(registry.folder(settings, version), settings.signing_key(), version)
    assert loaded.manifest["metrics"]["prequential NDCG@10"] == pytest.approx(prequential[WHOLE])
    state = user_profile.new()
    for n in (0, 1, 2):
        user_profile.update(state, Event(f"n{n}", "new", f"i{n}", "click", START + n + 1, START + n + 1, None, ("c0",)))
    from bentos.inputs import ItemTable

    table = ItemTable()
    for item_id in loaded.cascade.recall.index:
        table.describe(Item(item_id, ""))
    ask = Ask("new", user_profile.values(state, START + 60 * SECOND), table.at(START // 300_000_000 * 300_000_000), 5)
    picks = loaded.cascade.recommend(ask).picks
    assert sum(int(p.item_id[1:]) < OF_GROUP for p in picks) >= 3

    tuned = tune(settings, 10)
    assert set(tuned.scores) == {"links", "graph", "DIN"}
    assert all(found >= shipped > 0 for shipped, found in tuned.scores.values())
    assert parameters.load(settings, tuned.until) == tuned.parameters
    with pytest.raises(BadParameters, match="freshet tune"):
        train(settings, split=0.6)


def test_too_little_to_learn_from_says_what_to_do(settings: Settings) -> None:
    archive(settings, partitioned(settings, planted()[:300]))
    with pytest.raises(NoData, match="at least 1000"):
        train(settings)

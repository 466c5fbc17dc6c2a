"""Feast on our repository, on real stores: what its users do in a shell, and that its answers are ours."""

import asyncio
import os
from collections.abc import Iterator
from copy import copy
from typing import Any

import pandas as pd
import pytest
from redis import Redis as Client

from feature_repo import compare_and_set
from feature_repo.apply import FOLDER, ApplyError, feast
from feature_repo.features import item, user
from feature_repo.layout import VIEWS, entity_key, feature_field
from feature_repo.online import OnlineUsers
from freshet.settings import Settings, variable
from freshet.stack import setup
from streams.backfill import backfill
from streams.events import Micros
from streams.profiles import header
from streams.sinks.online import OnlineSink
from tests.feature_repo.test_compare_and_set import row
from tests.streams.folded import Folded, archive, fold, history, partitioned, publish

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
EVENTS = 500


@pytest.fixture
def environment(settings: Settings) -> Iterator[Settings]:
    """Feast takes its addresses from the environment."""
    before = dict(os.environ)
    os.environ |= settings.as_env()
    yield settings
    os.environ.clear()
    os.environ |= before


def contents(url: str, join_key: str, keys: set[str]) -> dict[str, dict[bytes, bytes]]:
    with Client.from_url(url) as client:
        return {key: client.hgetall(entity_key(join_key, key)) for key in keys}  # type: ignore[misc]


async def sink(settings: Settings, made: Folded) -> None:
    """Run the online sink until it has read all rows."""
    await publish(settings, made)
    stop = asyncio.Event()
    running = asyncio.create_task(OnlineSink(settings).run(stop))
    wanted = len(made.user_rows) + len(made.item_rows) + 2
    with Client.from_url(settings.redis_url) as client:
        for _ in range(600):
            places = [client.hvals(f"freshet:progress:{settings.topic(t)}") for t in ("user-features", "item-features")]
            if sum(int(n) for some in places for n in some) == wanted:  # type: ignore[union-attr]
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the sink did not read all rows")
    stop.set()
    await running


def test_the_stacks_own_set_up_applies_with_its_settings(settings: Settings) -> None:
    """Wherever the environment points."""
    setup.features(settings)
    assert (settings.home / "feast.db").exists()


async def test_a_repository_as_feasts_users_know_it(environment: Settings) -> None:
    settings = environment
    events = history(EVENTS)
    records = partitioned(settings, events)
    made = fold(settings, records)
    archive(settings, records)
    assert "user_values" in await asyncio.to_thread(feast, settings, "plan")
    await asyncio.to_thread(feast, settings, "apply")
    await asyncio.to_thread(backfill, settings, archived_only=True)
    await sink(settings, made)
    newest = {key.decode(): row for key, row in made.user_rows}

    from feast import FeatureStore

    store = FeatureStore(repo_path=str(FOLDER))

    # applying again changes nothing, and nothing is registered twice
    await asyncio.to_thread(feast, settings, "apply")
    assert "No changes to registry" in await asyncio.to_thread(feast, settings, "plan")
    assert sorted(view.name for view in store.list_feature_views()) == sorted(VIEWS.values())
    assert sorted(entity.name for entity in store.list_entities()) == ["item", "user"]

    # what serving reads is what Feast's SDK reads
    online = OnlineUsers(settings, timeout_s=10)
    rows = [{"user_id": key} for key in [*newest, "nobody"]]
    sdk = store.get_online_features(["user_state:state", "user_state:version"], rows).to_dict()
    assert sdk["state"] == await online.get_many([*newest, "nobody"]) == [*newest.values(), None]
    heads = [header(row) for row in newest.values()]
    assert sdk["version"] == [*(head.version for head in heads if head), None]
    await online.close()

    # values are those of the profiles, in serving ...
    at = events[-1].arrival + 1_000_000
    service = store.get_feature_service("ranker")
    asked = [{"user_id": key, "item_id": events[0].item_id, "at": at} for key in newest]
    served = store.get_online_features(service, asked).to_dict()
    item_rows = dict(made.item_rows)
    for n, newest_row in enumerate(newest.values()):
        expect(served, n, "user", user.values(newest_row, at))
        expect(served, n, "item", item.values(item_rows[events[0].item_id.encode()], at))

    # ... and in training, where the state is the one just before the label
    await asyncio.to_thread(check_point_in_time, store, settings, events, made)

    # and materialize gives, byte for byte, what the sink wrote
    elsewhere = settings.model_copy(update={"redis_url": settings.redis_url.removesuffix("0") + "1"})
    said = await asyncio.to_thread(feast, elsewhere, "materialize", "2020-01-01T00:00:00", "2040-01-01T00:00:00")
    assert "Materializing" in said
    mine, theirs = (contents(s.redis_url, "user_id", set(newest)) for s in (settings, elsewhere))
    assert all(len(row) == 4 for row in mine.values())
    assert mine == theirs
    # into the store that the sink fills, it changes nothing: its item rows are tiles, and older
    items = {key.decode() for key, _ in made.item_rows}
    before = contents(settings.redis_url, "item_id", items)
    await asyncio.to_thread(feast, settings, "materialize", "2020-01-01T00:00:00", "2040-01-01T00:00:00")
    assert contents(settings.redis_url, "item_id", items) == before
    assert contents(settings.redis_url, "user_id", set(newest)) == mine


def expect(given: dict[str, list[Any]], n: int, profile: str, values: dict[str, Any]) -> None:
    for name, value in values.items():
        theirs = given[f"{profile}__{name}"][n]
        assert (list(theirs) if isinstance(value, list) else theirs) == value, name


def check_point_in_time(store: Any, settings: Settings, events: list[Any], made: Folded) -> None:
    """Each label sees the state made by the events that its user had before it, and none that arrived with it."""
    labels = events[40::7]
    asked: list[Micros] = [label.event_time - 1 for label in labels]
    frame = pd.DataFrame(
        {
            "user_id": [label.user_id for label in labels],
            "item_id": [label.item_id for label in labels],
            "event_timestamp": pd.to_datetime(asked, unit="us", utc=True),
            "at": asked,
            "n": range(len(labels)),
        }
    )
    joined = store.get_historical_features(frame, store.get_feature_service("ranker"), filter_by_created_timestamp=True)
    given = joined.to_df().sort_values("n").to_dict("list")
    some = 0
    for n, (label, at) in enumerate(zip(labels, asked, strict=True)):
        known = user.new()
        stamped = []
        for event in events:
            if event.user_id == label.user_id:
                user.update(known, event)
                stamped.append((known.event_time, known.created, user.encode(known)))
        before = [row for time, created, row in stamped if time <= at and created <= at]
        some += bool(before)
        expect(given, n, "user", user.values(before[-1] if before else None, at))
        closed = item.new()
        tile = (at - 10_000_000) // 300_000_000 * 300_000_000
        for event in events:
            if event.item_id == label.item_id and event.event_time < tile and event.arrival < tile + 10_000_000:
                item.update(closed, event)
        expect(given, n, "item", item.values_at_tile(closed, tile))
    assert some > len(labels) // 2


def test_a_shell_without_settings_is_told_what_to_do(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable("redis_url"), raising=False)
    given = {name: text for name, text in settings.as_env().items() if name != variable("redis_url")}
    monkeypatch.setattr(Settings, "as_env", lambda self: given)
    with pytest.raises(ApplyError, match=r'no FRESHET_REDIS_URL: run `eval "\$\(freshet env\)"`'):
        feast(settings, "plan")


def test_a_view_that_is_deleted_takes_its_ranks_with_it(settings: Settings) -> None:
    from feast import Field, RepoConfig
    from feast.types import String

    from feature_repo.redis_store import VersionedRedisOnlineStore
    from feature_repo.views import user_state

    view = copy(user_state)
    view.entity_columns = [Field(name="user_id", dtype=String)]  # as Feast fills in when it registers a view
    config = RepoConfig(
        project="freshet",
        provider="local",
        registry="unused.db",
        entity_key_serialization_version=3,
        online_store={
            "type": "feature_repo.redis_store.VersionedRedisOnlineStore",
            "connection_string": settings.redis_url,
        },
    )
    store = VersionedRedisOnlineStore()
    with Client.from_url(settings.redis_url) as client:
        compare_and_set.write(client, VIEWS["user"], [row("a", 5)])
        client.hset(row("a", 5).key, mapping={b"_ts:other": b"", feature_field("other", "x"): b"1"})
        store.delete_table(config, view)
        assert compare_and_set.write(client, VIEWS["user"], [row("a", 1)]) == 1

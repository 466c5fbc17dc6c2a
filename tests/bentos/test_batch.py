"""Everyone's recommendations in one file are those of the cascade that serves."""

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo.features import user as user_profile
from freshet.batch import NoChampion, recommend_all
from freshet.settings import Settings
from streams.catalogue import Item, send_items
from streams.publisher import Publisher
from streams.topics import USER_FEATURES
from tests.bentos.small import CATEGORIES, ITEMS, NOW, cascade, event
from tests.bentos.test_reload import champion

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


def quiet(*_: object) -> None: ...


async def _fill(settings: Settings) -> None:
    async with Publisher(settings) as publisher:
        await send_items(publisher, [Item(f"i{n}", f"Item {n}", (CATEGORIES[n % 3],)) for n in range(ITEMS)])
        rows = {
            name: user_profile.advance(None, [event(n, name, f"i{n}", "click", NOW - 1_000_000)], n)
            for n, name in enumerate(("ada", "bob", "eve"))
        }
        await publisher.send(USER_FEATURES, [(name.encode(), row) for name, row in rows.items()])


def test_every_user_gets_what_the_champion_says_and_a_version_to_compare(settings: Settings, tmp_path: Path) -> None:
    asyncio.run(_fill(settings))
    out = tmp_path / "all.parquet"
    with pytest.raises(NoChampion, match="freshet train"):
        recommend_all(settings, out, 5, quiet)
    version = champion(settings, tmp_path / "made", cascade())
    assert recommend_all(settings, out, 5, quiet) == 3
    rows = pq.read_table(out).to_pylist()
    assert [(r["user_id"], r["position"]) for r in rows] == [(u, p) for u in ("ada", "bob", "eve") for p in range(5)]
    assert {r["user_version"] for r in rows if r["user_id"] == "eve"} == {2}
    assert {r["bundle"] for r in rows} == {version}
    assert "i0" not in {r["item_id"] for r in rows if r["user_id"] == "ada"}, "what a user has liked is not repeated"
    assert all(0 < r["probability"] < 1 for r in rows)
    assert not list(tmp_path.glob(".all*"))

    file = tmp_path / "rules.toml"
    file.write_text('[hide]\ncategories = ["war"]\n[[pin]]\nitem_id = "i0"\nposition = 1\n')
    recommend_all(settings.model_copy(update={"rules_file": file}), out, 5, quiet)
    ruled = pq.read_table(out).to_pylist()
    assert not any(int(r["item_id"][1:]) % 3 == CATEGORIES.index("war") for r in ruled)
    assert next(r["item_id"] for r in ruled if r["user_id"] == "eve") == "i0"

"""Recommendations for every known user at once, to a Parquet file: the cascade that serves, on all states as they are.

For mails, exports and caches of others. Nothing of it is logged as served.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bentos import bundle, house, registry
from bentos.cascade import Ask, pinned
from bentos.inputs import ItemMatrix, ItemTable
from bentos.stages.rules import NONE
from feature_repo.features import user as user_profile
from freshet.settings import Settings
from monitoring import raw
from streams.catalogue import read_catalogue
from streams.events import now
from streams.profiles import header
from streams.tiled import t_item
from streams.topics import ITEM_FEATURES, USER_FEATURES

AT_ONCE = 1_000
"""Users in a row group."""
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("position", pa.int16()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("probability", pa.float32()),
        ("conversion", pa.float32()),
        ("sources", pa.list_(pa.string())),
        ("bundle", pa.string()),
        ("user_version", pa.int64()),
        ("at", pa.int64()),
    ]
)
"""One row an item of an answer; `at` in epoch microseconds."""
Tell = Callable[[str, int, int | None], None]


class NoChampion(RuntimeError):
    """No bundle is champion yet."""


def recommend_all(settings: Settings, out: Path, k: int, tell: Tell) -> int:
    """Write the best `k` items of every user under the house rules; returns how many users.

    The file appears when it is whole. Raises `NoChampion`, `bundle.BadBundle`, `house.BadRules`.
    """
    loaded = champion(settings)
    cascade, version = loaded.cascade, loaded.version
    rules = NONE if settings.rules_file is None else house.read(settings.rules_file)
    tell("states", 0, None)
    users, items, at = raw.rows(settings, USER_FEATURES).rows, items_now(settings), now()
    writing = out.with_name(f".{out.name}.writing")
    with pq.ParquetWriter(writing, SCHEMA) as writer:
        found: list[dict[str, Any]] = []
        for n, (user_id, row) in enumerate(sorted(users.items()), 1):
            head = header(row)
            assert head is not None
            ask = Ask(user_id, user_profile.values(row, at), items, k, rules=rules)
            found += [
                {
                    "user_id": user_id,
                    "position": position,
                    "item_id": pick.item_id,
                    "score": pick.score,
                    "probability": pick.probability,
                    "conversion": pick.conversion,
                    "sources": pick.sources,
                    "bundle": version,
                    "user_version": head.version,
                    "at": at,
                }
                for position, pick in enumerate(pinned(cascade.recommend(ask).picks, ask))
            ]
            if n % AT_ONCE == 0 or n == len(users):
                writer.write_table(pa.Table.from_pylist(found, SCHEMA))
                found.clear()
                tell("users", n, len(users))
    writing.replace(out)
    return len(users)


def champion(settings: Settings) -> bundle.Bundle:
    """The bundle that serves. Raises `NoChampion`, `bundle.BadBundle`."""
    version = registry.champion(settings)
    if version is None:
        raise NoChampion("no bundle is champion yet: run `freshet train`")
    return bundle.load(registry.folder(settings, version), settings.signing_key(), version)


def items_now(settings: Settings) -> ItemMatrix:
    """All items as serving has them now: at the last closed tile."""
    table = ItemTable()
    for item in asyncio.run(read_catalogue(settings)).values():
        table.describe(item)
    for item_id, row in raw.rows(settings, ITEM_FEATURES).rows.items():
        table.put(item_id, row)
    return table.at(t_item(now()))

"""The oracle against the engine's fold over random histories, and what it must find when something is wrong."""

import ast
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from feature_repo.features import item, user
from monitoring import counting, oracle, raw
from monitoring.columns import declared
from monitoring.oracle import Ask, Declared, Oracle, UnknownKind
from monitoring.verify import check_rows, conservation, handed_over
from streams.events import Event, decode, encode
from streams.fold.items import ItemFold
from streams.fold.records import encode_json
from streams.fold.users import UserFold

DAY_US = 86_400_000_000
TOLERANCE_US = 60_000_000
WINDOW = 512
Records = list[tuple[int, bytes | None, bytes | None]]


def history(seed: int, n: int = 1_500) -> Records:
    """Late and very late events, ids sent again, few and many categories, and records that are no events."""
    chance = random.Random(seed)
    records: Records = []
    now = 1_700_000_000_000_000
    for k in range(n):
        now += chance.randrange(1, 100_000_000 if seed % 2 else 6_000_000_000)
        kind = chance.choice(["view", "click", "rate", "purchase", "impression", "like", "cart", "watched"])
        event = Event(
            event_id=f"e{chance.randrange(k + 1) if chance.random() < 0.1 else k}",
            user_id=f"u{chance.randrange(12)}",
            item_id=f"i{chance.randrange(30)}",
            type=kind,
            event_time=now - (chance.randrange(40 * DAY_US) if chance.random() < 0.1 else 0),
            arrival=now,
            value=chance.choice([1.0, 2.5, 4.0, 5.0, 0.1234565]) if kind in ("rate", "purchase") else None,
            categories=tuple(chance.sample([f"c{c}" for c in range(100 if seed % 3 else 9)], chance.randrange(4))),
        )
        records.append((len(records), event.user_id.encode(), encode(event)))
        if chance.random() < 0.02:
            records.append((len(records), b"u1", chance.choice([b"", b"[]", b"{}", encode(event)[:-1]])))
    return records


def folded(records: Records, cut: int = 97) -> tuple[raw.Rows, raw.Rows, UserFold]:
    """What the engine makes of them, in commits of `cut` records."""
    users, items = UserFold(0, WINDOW, TOLERANCE_US, partitions=1), ItemFold(0)
    user_rows: dict[bytes, bytes] = {}
    item_rows: dict[bytes, bytes] = {}
    offset = 0
    for at in range(0, len(records), cut):
        users.fold(records[at : at + cut])
        snapshot = users.snapshot()
        user_rows |= dict(snapshot.rows)
        items.fold([(offset + n, None, value) for n, (_, value) in enumerate(snapshot.deltas)])
        offset += len(snapshot.deltas)
        item_rows |= dict(items.snapshot().rows)
    rows = [raw.Rows({key.decode(): row for key, row in some.items()}) for some in (user_rows, item_rows)]
    return rows[0], rows[1], users


def meta_of(fold: UserFold) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(encode_json(fold.meta))
    return meta


def judged(records: Records) -> tuple[counting.Tally, Oracle]:
    tallies, applied = counting.count({0: records}, WINDOW, TOLERANCE_US, 1)
    return tallies[0], Oracle(applied)


def quiet(_label: str, _done: int, _total: int | None) -> None:
    """No progress."""


@pytest.mark.parametrize("seed", range(4))
def test_oracle_and_engine_agree_on_every_count_and_every_column(seed: int) -> None:
    records = history(seed)
    users, items, fold = folded(records)
    tally, knows = judged(records)
    assert min(tally.late, tally.duplicate, tally.rejected) > 0, "the history must hold each outcome"
    assert conservation({0: tally}, {0: meta_of(fold)}).mismatches == 0
    for profile, rows, asks in ((user, users, 2), (item, items, 4)):
        check = check_rows(profile, rows, knows, quiet)
        assert check.examples == []
        assert check.compared == asks * len(rows.rows) > 0


def test_a_lost_event_is_caught_in_the_user_and_in_the_item() -> None:
    records = history(1)
    _, knows = judged(records)
    lost = max(n for n, (_, _, value) in enumerate(records) if value and b'"like"' in value)
    kept = [*records[:lost], (lost, b"u1", b"lost"), *records[lost + 1 :]]
    users, items, fold = folded(kept)
    event = decode(records[lost][2] or b"")
    for profile, rows, key in ((user, users, event.user_id), (item, items, event.item_id)):
        check = check_rows(profile, rows, knows, quiet)
        assert check.mismatches > 0
        assert f"{profile.name} {key!r}" in check.examples[0]
        assert "likes_" in check.examples[0]
    tally, _ = judged(records)
    check = conservation({0: tally}, {0: meta_of(fold)})
    assert check.mismatches == 1
    assert handed_over({0: tally}, {0: {"passed": {"0": tally.applied}}}).mismatches == 0
    assert handed_over({0: tally}, {0: meta_of(fold)}).mismatches == 1


def test_an_event_counted_twice_is_caught() -> None:
    records = history(1)
    users, _, _ = folded(records)
    _, knows = judged(records)
    name, row = next(iter(users.rows.items()))
    state = user.decode(row)
    user.update(state, Event("again", name, "i0", "view", state.newest, state.newest))
    users.rows[name] = user.encode(state)
    check = check_rows(user, users, knows, quiet)
    assert check.mismatches == 2
    assert "events_ever" in check.examples[0]


def test_a_missing_and_an_invented_key_are_caught() -> None:
    records = history(2)
    users, _, _ = folded(records)
    _, knows = judged(records)
    users.rows["nobody"] = users.rows.pop(min(users.rows))
    check = check_rows(user, users, knows, quiet)
    assert check.mismatches == 2
    assert "missing" in check.examples[0]
    assert "'nobody'" in check.examples[1]


def test_a_version_that_went_down_is_caught() -> None:
    records = history(2)
    users, _, _ = folded(records)
    _, knows = judged(records)
    users.regressions.append("u1")
    assert check_rows(user, users, knows, quiet).mismatches == 1


@pytest.mark.parametrize(
    "record",
    [
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1.0,"arrival":1}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":true,"arrival":1}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"View","event_time":1,"arrival":1}',
        b'{"event_id":"a","user_id":"u","item_id":"","type":"view","event_time":1,"arrival":1}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"value":NaN}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"value":1e7}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"value":true}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"categories":null}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"properties":[1]}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":61000002,"arrival":1}',
        b'{"event_id":"\\ud800","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1}',
        b"\xff{}",
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"value":3,"other":[]}',
        b'{"event_id":"a","user_id":"u","item_id":"i","type":"view","event_time":1,"arrival":1,"value":null}',
        b'{"event_id":"a","user_id":"v","item_id":"i","type":"view","event_time":1,"arrival":1}',
    ],
)
def test_the_door_is_as_strict_for_the_oracle_as_for_the_engine(record: bytes) -> None:
    fold = UserFold(0, WINDOW, TOLERANCE_US, partitions=1)
    fold.fold([(0, b"u", record)])
    tally, _ = judged([(0, b"u", record)])
    assert (tally.applied, tally.rejected) == (fold.meta.applied, fold.meta.rejected)


def test_a_kind_without_a_rule_is_refused() -> None:
    with pytest.raises(UnknownKind, match="Median"):
        Oracle([]).values("user_id", [Declared("Median", "m", None)], [Ask("u", 1)])


def test_every_declared_kind_has_a_rule() -> None:
    for profile in (user, item):
        for feature in declared(profile):
            assert hasattr(Oracle, f"_{feature.kind.lower()}"), feature


@pytest.mark.parametrize("module", [counting, oracle])
def test_the_oracle_shares_no_code_with_the_line(module: object) -> None:
    names = set(_imports(ast.parse(Path(str(module.__file__)).read_text())))  # type: ignore[attr-defined]
    ours = {
        name for name in names if name.split(".")[0] in ("streams", "feature_repo", "bentos", "training", "freshet")
    }
    assert ours == set()
    assert {name for name in names if name.startswith("monitoring")} <= {"monitoring.counting"}


def _imports(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)

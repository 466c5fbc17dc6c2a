"""What is exported answers on a device as the cascade does here, without the cascade's code."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from bentos.bundle import Bundle
from bentos.cascade import Ask, Cascade
from bentos.inputs import ITEM_COLUMNS, ItemMatrix, ItemTable, input_names
from bentos.ondevice.export import MANIFEST_BYTES, MOST_MB, NoExport, catalogue, export, strongest
from bentos.ondevice.recommend import READERS, Device, read
from bentos.stages.content import BUCKETS, Tower
from bentos.stages.recall import SOURCES, ItemToItem, LightGCN, Recall
from bentos.stages.rerank import Keep
from bentos.taste import Taste, unit
from feature_repo.features import user as user_profile
from freshet.settings import Settings
from streams.aggregates import DAY, HOUR, MINUTE, Count, Decayed, Distinct, Mean, Recent, Since, Sum
from streams.catalogue import Item, send_items
from streams.events import Event
from streams.publisher import Publisher
from tests.bentos.small import CATEGORIES, ITEMS, NOW, cascade, event, item_matrix
from tests.bentos.test_reload import champion
from training.networks import DinModule


def world() -> ItemMatrix:
    """One item came after the training, and all have been shown, some more and some less."""
    matrix = item_matrix(extra=("i999",))
    values = matrix.values.copy()
    values[:, ITEM_COLUMNS.index("impressions_7d")] = np.random.default_rng(2).integers(0, 200, len(matrix))
    return replace(matrix, values=values, kept={}, of_tile={})


MATRIX = world()
KINDS = ("view", "click", "rate", "purchase", "impression")
WITHOUT_VALUE = ("view", "click", "impression")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What one person did in the last weeks, in order; some of it with items that nobody knows."""
    ages = draw(st.lists(st.integers(0, 20 * DAY // MINUTE), max_size=60, unique=True))
    return [
        Event(
            f"e{n}",
            "u",
            item,
            kind,
            NOW - age * MINUTE,
            NOW - age * MINUTE,
            None if kind in WITHOUT_VALUE else float(draw(st.integers(1, 5))),
            () if item == "i77" else ("drama",) if item == "i999" else (CATEGORIES[int(item[1:]) % 3],),
        )
        for n, age in enumerate(sorted(ages, reverse=True))
        for item in [draw(st.sampled_from([*(f"i{i}" for i in range(ITEMS)), "i999", "i77"]))]
        for kind in [draw(st.sampled_from(KINDS))]
    ]


def as_json(events: list[Event]) -> list[dict[str, Any]]:
    return [
        {"item_id": e.item_id, "type": e.type, "time": e.event_time / 1e6, "value": e.value, "categories": e.categories}
        for e in events
    ]


def liked(*items: str) -> list[Event]:
    """One click a minute, the last one an hour ago."""
    begin = NOW - HOUR - len(items) * MINUTE
    return [event(n, "u", item, "click", begin + n * MINUTE) for n, item in enumerate(items)]


def values_of(events: list[Event]) -> dict[str, Any]:
    return user_profile.values(user_profile.advance(None, events, 0) if events else None, NOW)


def ranked(by: Cascade, events: list[Event], k: int, items: ItemMatrix = MATRIX) -> list[str]:
    """What recall and ranking name, without what stays on the server."""
    plain = replace(by, reranker=Keep(), diversity=0.0)
    values = values_of(events) | {"shown": [], "shown_age_s": []}
    return [pick.item_id for pick in plain.recommend(Ask("u", values, items, k)).picks]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    made = export(folder, Bundle(cascade(), {}, "7"), MATRIX)
    assert (made.form, made.links) == ("float32", ITEMS)
    return folder


@given(histories())
def test_values_read_on_a_device_are_the_profiles(exported: Path, events: list[Event]) -> None:
    declared = Device(exported).manifest["features"]
    told = [{**e, "time": round(e["time"] * 1e6), "categories": list(e["categories"])} for e in as_json(events)]
    mine, theirs = read(declared, told, NOW), values_of(events)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name] == (
            value if value and isinstance(value, list) and isinstance(value[0], str) else pytest.approx(value)
        ), name


@given(histories(), st.integers(1, 20))
def test_a_device_names_the_same_items_in_the_same_order(exported: Path, events: list[Event], k: int) -> None:
    picks = Device(exported).recommend(as_json(events), k, NOW)
    assert [pick.item_id for pick in picks] == ranked(cascade(), events, k)


def test_a_device_does_without_a_history_and_without_anything_left(exported: Path) -> None:
    device, everything = Device(exported), [f"i{n}" for n in range(ITEMS)] + ["i999"]
    assert [pick.item_id for pick in device.recommend([], 10, NOW)] == ranked(cascade(), [], 10)
    assert {pick.item_id for pick in device.recommend([], 10, NOW, exclude=everything[3:])} == set(everything[:3])
    assert device.recommend([], 10, NOW, exclude=everything) == []


def test_a_shop_without_categories_can_be_exported(tmp_path: Path) -> None:
    bare = replace(MATRIX, category_names=(), categories=np.zeros((len(MATRIX), 0), np.float32), kept={}, of_tile={})
    export(tmp_path, Bundle(cascade(), {}, "7"), bare)
    events = [msgspec.structs.replace(e, categories=()) for e in liked("i3", "i9", "i20")]
    picks = Device(tmp_path).recommend(as_json(events), 10, NOW)
    assert [pick.item_id for pick in picks] == ranked(cascade(), events, 10, bare)


def test_a_device_gives_the_cascades_reasons(exported: Path) -> None:
    events = liked("i3", "i4", "i10", "i11", "i12")
    plain = replace(cascade(), reranker=Keep())
    reasons = {p.item_id: p.because.item_id for p in plain.recommend(Ask("u", values_of(events), MATRIX, 20)).picks}
    picks = Device(exported).recommend(as_json(events), 20, NOW)
    assert {pick.item_id: pick.because for pick in picks} == reasons


def test_what_does_not_fit_gets_int8_vectors_and_names_nearly_the_same(exported: Path, tmp_path: Path) -> None:
    """Rounding moves scores by some thousandths, and a candidate at the border of its source's share with them."""
    exact = sum(file.stat().st_size for file in exported.iterdir() if file.name != "manifest.json")
    made = export(tmp_path, Bundle(cascade(), {}, "7"), MATRIX, (exact - 1 + MANIFEST_BYTES) / 1e6)
    assert made.form == "int8"
    assert sum(made.bytes.values()) - made.bytes["manifest.json"] < exact
    device, rng = Device(tmp_path), np.random.default_rng(5)
    shared = []
    for _ in range(50):
        events = liked(*(f"i{n}" for n in rng.choice(ITEMS, rng.integers(1, 9), replace=False)))
        picks = device.recommend(as_json(events), 10, NOW)
        shared.append(len({pick.item_id for pick in picks} & set(ranked(cascade(), events, 10))) / 10)
    assert np.mean(shared) >= 0.95
    assert min(shared) >= 0.8


def test_the_strongest_links_stay_where_not_all_fit() -> None:
    whole = catalogue(cascade(), MATRIX)
    cut = strongest(whole, 5)
    for row in range(len(MATRIX)):
        weights = np.sort(np.abs(whole.weights[row]))[::-1]
        np.testing.assert_array_equal(np.sort(np.abs(cut.weights[row]))[::-1], weights[:5])
        full = dict(zip(whole.links[row].tolist(), whole.weights[row].tolist(), strict=True))
        assert all(full[to] == w for to, w in zip(cut.links[row].tolist(), cut.weights[row].tolist(), strict=True) if w)


@pytest.fixture(scope="module")
def large() -> tuple[Cascade, ItemMatrix]:
    """60,000 items as a training would leave them: 64 dimensions, 100 links an item, one or two of 40 categories."""
    n, dim, links, rng = 60_000, 64, 100, np.random.default_rng(1)
    columns = (np.arange(n)[:, None] + rng.integers(1, n // links, (n, links)).cumsum(1)) % n
    weights = csr_matrix((rng.random(n * links, np.float32), columns.ravel(), np.arange(n + 1) * links), shape=(n, n))
    vectors, tower = rng.normal(size=(n, dim)).astype(np.float32), Tower(np.zeros((BUCKETS, dim), np.float32))
    torch.manual_seed(3)
    hot = np.zeros((n, 40), np.float32)
    hot[np.arange(n), rng.integers(40, size=n)] = hot[np.arange(n), rng.integers(40, size=n)] = 1
    ids = tuple(f"item-{row}" for row in range(n))
    values = rng.poisson(3.0, (n, len(ITEM_COLUMNS))).astype(float)
    matrix = ItemMatrix(
        NOW, ids, {i: row for row, i in enumerate(ids)}, values, tuple(map(str, range(40))), hot, [None] * n
    )
    recall = Recall(matrix.index, ItemToItem(weights), LightGCN(vectors, np.full(n, 9.0, np.float32)), tower)
    din, taste = DinModule(len(input_names(SOURCES)), dim).din(), Taste(unit(vectors[:, :16]))
    return Cascade(recall, vectors, tower, taste, din, Keep(), 300), matrix


def test_sixty_thousand_items_are_under_twenty_megabytes(large: tuple[Cascade, ItemMatrix], tmp_path: Path) -> None:
    made = export(tmp_path, Bundle(large[0], {}, "7"), large[1])
    on_disk = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert on_disk == sum(made.bytes.values()) <= MOST_MB * 1e6
    assert (made.form, made.items, made.links_of) == ("int8", 60_000, 100)
    assert made.links >= 20, "what is free is given to links"
    picks = Device(tmp_path).recommend([{"item_id": "item-5", "time": NOW / 1e6 - 60}], 10, NOW)
    assert len({pick.item_id for pick in picks} - {"item-5"}) == 10


def test_what_is_too_large_is_refused(large: tuple[Cascade, ItemMatrix], tmp_path: Path) -> None:
    with pytest.raises(NoExport, match=r"60,000 items need 1\d\.\d MB"):
        export(tmp_path / "device", Bundle(large[0], {}, "7"), large[1], 10.0)
    assert not (tmp_path / "device").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(NoExport, match="not empty"):
        export(tmp_path, Bundle(cascade(), {}, "7"), MATRIX)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_shop_without_items_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(NoExport, match="no items"):
        export(tmp_path, Bundle(cascade(), {}, "7"), ItemTable().at(0))


def test_a_changed_file_is_refused(exported: Path, tmp_path: Path) -> None:
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "items.json").write_bytes((exported / "items.json").read_bytes().replace(b"i3", b"i4"))
    with pytest.raises(ValueError, match=r"items\.json is not the file"):
        Device(tmp_path)


def test_the_example_runs_with_numpy_and_onnxruntime_alone(exported: Path, tmp_path: Path) -> None:
    events = liked("i3", "i9", "i20")
    (tmp_path / "history.json").write_text(
        json.dumps([{"item_id": e.item_id, "time": e.event_time / 1e6} for e in events])
    )
    code = f"""
import runpy, sys
sys.argv = ["recommend.py", {str(tmp_path / "history.json")!r}, "-k", "5", "--at", "{NOW / 1e6}"]
runpy.run_path({str(exported / "recommend.py")!r}, run_name="__main__")
ours = {{name.partition(".")[0] for name in sys.modules}}
assert not ours & {{"torch", "onnx", "freshet", "bentos", "streams", "feature_repo", "scipy"}}, ours
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line)["item_id"] for line in done.stdout.splitlines()]
    likes = [{"item_id": e.item_id, "time": e.event_time / 1e6} for e in events]
    assert told == [pick.item_id for pick in Device(exported).recommend(likes, 5, NOW)]
    assert len(told) == 5


def test_every_aggregate_has_a_reader_on_the_device() -> None:
    assert set(READERS) == {kind.__name__ for kind in (Count, Decayed, Distinct, Mean, Recent, Since, Sum)}


async def describe(settings: Settings) -> None:
    async with Publisher(settings) as publisher:
        await send_items(publisher, [Item(f"i{n}", f"Item {n}", (CATEGORIES[n % 3],)) for n in range(ITEMS)])


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
def test_the_command_writes_what_the_champion_knows_and_says_what_is_missing(
    settings: Settings, tmp_path: Path
) -> None:
    env = os.environ | settings.as_env() | {"FRESHET_BUNDLE_KEY": settings.signing_key().decode()}

    def freshet_export() -> tuple[int, str, str]:
        words = [sys.executable, "-m", "freshet", "export", str(tmp_path / "device")]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, _, said = freshet_export()
    assert (code, "run `freshet train`" in said) == (1, True), said
    asyncio.run(describe(settings))
    version = champion(settings, tmp_path / "made", cascade())
    code, out, said = freshet_export()
    assert code == 0, said
    assert f"{ITEMS} items, exact" in out
    assert "RankNet" in said, "what the device leaves out is said"
    device = Device(tmp_path / "device")
    assert device.manifest["bundle"] == version
    assert len(device.recommend([{"item_id": "i3", "time": NOW / 1e6}], 5)) == 5
    code, _, said = freshet_export()
    assert (code, "not empty" in said) == (2, True), said

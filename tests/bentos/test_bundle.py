"""A bundle comes back as it was saved, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightgbm
import numpy as np
import pytest

from bentos import bundle
from bentos.cascade import Ask, Cascade
from bentos.inputs import input_names
from bentos.stages.recall import SOURCES
from bentos.stages.rerank import Blend, Keep, LambdaRank, RankNet
from tests.bentos.small import cascade, item_matrix, liking

KEY = b"a key for tests only"


def with_trees(blended: bool = False) -> Cascade:
    plain = cascade()
    inputs = len(input_names(SOURCES)) + 1
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, inputs))
    data = lightgbm.Dataset(rows, (rows[:, -1] > 0).astype(int), group=[20] * 10)
    trees = lightgbm.train({"objective": "lambdarank", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, data, 5)
    lambdarank = LambdaRank(trees)
    top = Blend(cast(RankNet, plain.reranker), lambdarank, 0.7) if blended else lambdarank
    return Cascade(plain.recall, plain.vectors, plain.tower, plain.taste, plain.din, top, 20, 0.1)


def blended() -> Cascade:
    return with_trees(blended=True)


def kept() -> Cascade:
    return replace(cascade(), reranker=Keep())


@pytest.fixture(params=[cascade, with_trees, blended, kept], ids=["RankNet", "LambdaRank", "Blend", "Keep"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Cascade, Path]:
    made: Cascade = request.param()
    bundle.save(tmp_path, made, KEY, metrics={"NDCG@10": 0.1})
    return made, tmp_path


def test_it_answers_as_before(saved: tuple[Cascade, Path]) -> None:
    made, folder = saved
    loaded = bundle.load(folder, KEY, "3")
    ask = Ask("u", liking("i3", "i9"), item_matrix(), 10)
    assert loaded.cascade.recommend(ask).picks == made.recommend(ask).picks
    assert loaded.version == "3"
    assert loaded.manifest["metrics"] == {"NDCG@10": 0.1}


def test_any_touched_file_is_refused(saved: tuple[Cascade, Path]) -> None:
    _, folder = saved
    files = [p for p in folder.iterdir() if p.name != bundle.MANIFEST]
    assert len(files) in (3, 4, 5)
    for file in files:
        before = file.read_bytes()
        middle = len(before) // 2
        file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        with pytest.raises(bundle.BadBundle, match=file.name):
            bundle.load(folder, KEY, "1")
        file.unlink()
        with pytest.raises(bundle.BadBundle, match=file.name):
            bundle.load(folder, KEY, "1")
        file.write_bytes(before)
    bundle.load(folder, KEY, "1")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 5},
        {"metrics": {"NDCG@10": 0.9}},
        {"files": {}},
        {"signature": "0" * 64},
        {"signature": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_touched_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    bundle.save(tmp_path, cascade(), KEY)
    path = tmp_path / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(bundle.BadBundle, match="signature"):
        bundle.load(tmp_path, KEY, "1")


def test_another_key_is_refused(tmp_path: Path) -> None:
    bundle.save(tmp_path, cascade(), KEY)
    with pytest.raises(bundle.BadBundle, match="FRESHET_BUNDLE_KEY"):
        bundle.load(tmp_path, b"another", "1")


def test_other_features_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "fingerprints", lambda: {"user": "older", "item": "older"})
    bundle.save(tmp_path, cascade(), KEY)
    monkeypatch.undo()
    with pytest.raises(bundle.BadBundle, match="train again"):
        bundle.load(tmp_path, KEY, "1")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bundle.BadBundle, match=bundle.MANIFEST):
        bundle.load(tmp_path, KEY, "1")


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    """Or else a bundle signed with RankNet would take a LambdaRank that somebody put beside it."""
    bundle.save(tmp_path, cascade(), KEY)
    (tmp_path / bundle.LAMBDARANK).write_text("tree")
    with pytest.raises(bundle.BadBundle, match=bundle.LAMBDARANK):
        bundle.load(tmp_path, KEY, "1")


def test_nothing_in_it_can_run_code(saved: tuple[Cascade, Path]) -> None:
    _, folder = saved
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors", ".txt", ".parquet"}
    assert not any(p.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"PK")) for p in folder.iterdir())

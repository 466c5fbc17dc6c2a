"""The bundle: everything that the cascade learned, in one signed folder.

Arrays are safetensors, trees are LightGBM's text, the rest is JSON: nothing in it can run code when it is read. The
manifest lists each file's SHA-256 and is signed (HMAC-SHA256), so a bundle that somebody touched does not load. Where
bundles are kept and which one is champion is left to `bentos.registry`.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from scipy.sparse import csr_matrix

from bentos.cascade import Cascade
from bentos.inputs import input_names
from bentos.stages.content import Tower
from bentos.stages.rank import Calibration, Din
from bentos.stages.recall import SOURCES, ItemToItem, LightGCN, Recall
from bentos.stages.rerank import Blend, Keep, LambdaRank, RankNet, Reranker
from bentos.taste import Taste
from feature_repo.features import item as item_profile
from feature_repo.features import user as user_profile

FORMAT = 5
MANIFEST, ITEMS, RECALL, DIN, RANKNET, LAMBDARANK = (
    "manifest.json",
    "items.json",
    "recall.safetensors",
    "din.safetensors",
    "ranknet.safetensors",
    "lambdarank.txt",
)
REFERENCE = "reference.parquet"
"""Values and scores as the bundle saw them when it was made: what drift is measured against."""


class BadBundle(ValueError):
    """A folder that is no bundle, or not one that may be trusted, or not one for these features."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. `version` is its number in the registry."""

    cascade: Cascade
    manifest: Mapping[str, Any]
    version: str


def fingerprints() -> dict[str, str]:
    """Of the declarations that this code reads features by."""
    return {"user": user_profile.fingerprint, "item": item_profile.fingerprint}


def save(folder: Path, cascade: Cascade, key: bytes, **about: Any) -> None:
    """Write a bundle into an empty folder. `about` (metrics, parameters, times) goes into the manifest as it is.

    A `reference.parquet` that is already there is signed with the rest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recall, network = cascade.recall, cascade.din
    links = recall.item_to_item.weights
    ids = sorted(recall.index, key=lambda i: recall.index[i])
    (folder / ITEMS).write_text(json.dumps(ids))
    save_arrays(
        {
            "i2i_data": links.data.astype(np.float32),
            "i2i_indices": links.indices.astype(np.int32),
            "i2i_indptr": links.indptr.astype(np.int64),
            "gcn_items": recall.lightgcn.items,
            "gcn_degrees": recall.lightgcn.degrees,
            "gcn_tower": recall.tower.weights,
            "vectors": cascade.vectors,
            "tower": cascade.tower.weights,
            "taste": cascade.taste.items,
        },
        folder / RECALL,
    )
    save_arrays(dict(network.weights), folder / DIN)
    for part in parts(cascade.reranker):
        if isinstance(part, LambdaRank):
            part.booster.save_model(folder / LAMBDARANK)
        else:
            save_arrays(dict(part.weights), folder / RANKNET)
    files = sorted(p for p in folder.iterdir() if p.name != MANIFEST)
    manifest = {
        "format": FORMAT,
        "fingerprints": fingerprints(),
        "inputs": list(input_names(SOURCES)),
        "size": cascade.size,
        "diversity": cascade.diversity,
        "calibration": list(cascade.calibration),
        "blend": cascade.reranker.weight if isinstance(cascade.reranker, Blend) else None,
        "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        **about,
    }
    manifest["signature"] = _signature(manifest, key)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def parts(reranker: Reranker) -> list[LambdaRank | RankNet]:
    """The models that a re-ranker is made of."""
    if isinstance(reranker, Blend):
        return [reranker.ranknet, reranker.lambdarank]
    return [] if isinstance(reranker, Keep) else [cast(LambdaRank | RankNet, reranker)]


def _signature(manifest: Mapping[str, Any], key: bytes) -> str:
    body = {k: v for k, v in manifest.items() if k != "signature"}
    return hmac.new(key, json.dumps(body, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def check(folder: Path, key: bytes) -> dict[str, Any]:
    """The manifest of a bundle whose signature, files and features are right. Raises `BadBundle` with the reason."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BadBundle(f"{folder} has no readable {MANIFEST}: {error}") from error
    if not isinstance(manifest, dict) or not hmac.compare_digest(
        str(manifest.get("signature")), _signature(manifest, key)
    ):
        raise BadBundle(
            f"{folder}: the signature is wrong; it was made with another FRESHET_BUNDLE_KEY, or changed since"
        )
    if manifest["format"] != FORMAT:
        raise BadBundle(f"{folder} has format {manifest['format']}, this code reads {FORMAT}: train again")
    for name, digest in manifest["files"].items():
        path = folder / name
        if path.name != name or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise BadBundle(f"{folder}: {name} is missing or was changed after it was signed")
    strange = sorted({p.name for p in folder.iterdir()} - {MANIFEST, *manifest["files"]})
    if strange:
        raise BadBundle(f"{folder}: {strange[0]} was put there after the bundle was signed")
    if manifest["fingerprints"] != fingerprints() or manifest["inputs"] != list(input_names(SOURCES)):
        raise BadBundle(
            f"{folder} was trained on other features than feature_repo/features.py declares now: train again"
        )
    return manifest


def load(folder: Path, key: bytes, version: str) -> Bundle:
    """Read a bundle. Raises `BadBundle`."""
    manifest = check(folder, key)
    ids = json.loads((folder / ITEMS).read_text())
    arrays = load_arrays(folder / RECALL)
    n = len(ids)
    links = csr_matrix((arrays["i2i_data"], arrays["i2i_indices"], arrays["i2i_indptr"]), shape=(n, n))
    vectors = arrays["vectors"]
    cascade = Cascade(
        Recall(
            {item_id: row for row, item_id in enumerate(ids)},
            ItemToItem(links),
            LightGCN(arrays["gcn_items"], arrays["gcn_degrees"]),
            Tower(arrays["gcn_tower"]),
        ),
        vectors,
        Tower(arrays["tower"]),
        Taste(arrays["taste"]),
        Din(load_arrays(folder / DIN)),
        _reranker(folder, manifest),
        manifest["size"],
        manifest["diversity"],
        Calibration(*manifest["calibration"]),
    )
    return Bundle(cascade, manifest, version)


def _reranker(folder: Path, manifest: Mapping[str, Any]) -> Reranker:
    ranknet, lambdarank = None, None
    if RANKNET in manifest["files"]:
        ranknet = RankNet(load_arrays(folder / RANKNET))
    if LAMBDARANK in manifest["files"]:
        import lightgbm  # takes a second, and most bundles do without

        lambdarank = LambdaRank(lightgbm.Booster(model_file=folder / LAMBDARANK))
    if ranknet is not None and lambdarank is not None:
        return Blend(ranknet, lambdarank, manifest["blend"])
    return ranknet or lambdarank or Keep()

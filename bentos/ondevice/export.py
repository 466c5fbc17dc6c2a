"""Writes recall and ranking of a bundle, with all items as they are now, into a folder that a device runs by itself.

Exact where that fits into the size allowed. Where it does not, vectors and link weights become int8, item values
float16, and each item keeps as many of its strongest links as fit. Re-ranking, diversity, exploring and house rules
stay on the server.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bentos.bundle import Bundle
from bentos.cascade import Cascade
from bentos.inputs import USER_COLUMNS, Floats, Indices, ItemMatrix, input_names, item_inputs
from bentos.ondevice import graphs, recommend
from bentos.ondevice.builder import Form
from bentos.ondevice.graphs import Catalogue
from bentos.stages.recall import SHARES, SOURCES, ItemToItem, new_items, trending
from bentos.stages.rerank import Keep
from feature_repo.features import user as user_profile
from streams.aggregates import EVER, Aggregate, span_of

FORMAT = 2
MOST_MB = 20.0
LEAST_LINKS = 8
"""With fewer links an item would not find its neighbours: then the catalogue is too large, and that is said."""
MANIFEST_BYTES = 20_000
"""Kept free for the manifest."""
MANIFEST, ITEMS, SCRIPT = "manifest.json", "items.json", "recommend.py"


class NoExport(ValueError):
    """It cannot be written. The text says why."""


@dataclass(frozen=True)
class Exported:
    """What was written. An item has at most `links` of the `links_of` that the bundle has. `bytes` by file.

    `left_out`: what the bundle would do after ranking, in words; empty where that is nothing.
    """

    bytes: Mapping[str, int]
    items: int
    form: Form
    links: int
    links_of: int
    left_out: str


def export(folder: Path, bundle: Bundle, items: ItemMatrix, most_mb: float = MOST_MB) -> Exported:
    """Write into a folder that is new or empty. Raises `NoExport`, also where it would be larger than `most_mb`."""
    if folder.exists() and any(folder.iterdir()):
        raise NoExport(f"{folder} is not empty")
    if not len(items):
        raise NoExport("there are no items yet")
    whole, most = catalogue(bundle.cascade, items), int(most_mb * 1e6) - MANIFEST_BYTES
    form, known, files = _fitting(bundle.cascade, whole, _described(whole, items), most)
    manifest = {
        "format": FORMAT,
        "bundle": bundle.version,
        "tile": items.tile,
        "items": len(items),
        "vectors": form,
        "links": known.links.shape[1],
        "links_of": whole.links.shape[1],
        "candidates": bundle.cascade.size,
        "sources": SOURCES,
        "shares": SHARES,
        "user_columns": USER_COLUMNS,
        "features": [_declared(feature) for feature in user_profile.features],
        "inputs": input_names(SOURCES),
        "normalisation": {
            "user and item columns": "log(1 + x)",
            "mean": bundle.cascade.din.weights["mean"].tolist(),
            "scale": bundle.cascade.din.weights["scale"].tolist(),
        },
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    files[MANIFEST] = json.dumps(manifest, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sizes = {name: len(data) for name, data in files.items()}
    return Exported(sizes, len(items), form, known.links.shape[1], whole.links.shape[1], _left_out(bundle.cascade))


def _left_out(cascade: Cascade) -> str:
    parts = [] if isinstance(cascade.reranker, Keep) else [type(cascade.reranker).__name__]
    return " and ".join(parts + (["diversity"] if cascade.diversity else []))


def _fitting(
    cascade: Cascade, whole: Catalogue, described: bytes, most: int
) -> tuple[Form, Catalogue, dict[str, bytes]]:
    """The most exact form that is not larger than so many bytes: its name, what is left of the catalogue, its files."""

    def files(known: Catalogue, form: Form) -> dict[str, bytes]:
        return {
            "recall.onnx": graphs.recall(known, cascade.size, form).SerializeToString(),
            "rank.onnx": graphs.rank(known, cascade.din, len(USER_COLUMNS), form).SerializeToString(),
            ITEMS: described,
            SCRIPT: Path(recommend.__file__).read_bytes(),
        }

    def size(made: Mapping[str, bytes]) -> int:
        return sum(map(len, made.values()))

    if size(exact := files(whole, "float32")) <= most:
        return "float32", whole, exact
    some = files(least := strongest(whole, LEAST_LINKS), "int8")
    if size(some) > most:
        raise NoExport(
            f"{len(whole.links):,} items need {size(some) / 1e6:.1f} MB even with int8 vectors and {LEAST_LINKS} links "
            "an item: allow more with --most-mb, or export fewer items"
        )
    one_link = size(files(strongest(whole, LEAST_LINKS + 1), "int8")) - size(some)
    more = (most - size(some)) // one_link if one_link else 0
    known = strongest(whole, LEAST_LINKS + more) if more else least
    return "int8", known, files(known, "int8")


def catalogue(cascade: Cascade, items: ItemMatrix) -> Catalogue:
    """All items of the matrix with what the bundle knows of them."""
    known = cascade.recall.known(items)
    there, n = known >= 0, len(items)
    width = len(items.category_names)
    per_item = [np.flatnonzero(row) for row in items.categories]
    narrow = np.int16 if width < 1 << 15 else np.int32
    categories = np.full((n, max(1, max(map(len, per_item)))), width, dtype=narrow)
    for row, of in enumerate(per_item):
        categories[row, : len(of)] = of
    graph = cascade.recall.graph(items)
    links, weights = _links(cascade.recall.item_to_item, known)
    new, _, shown = new_items(items)
    damped = np.full(n, np.inf, dtype=np.float32)
    damped[new] = shown
    return Catalogue(
        width,
        categories,
        cascade.item_vectors(items),
        cascade.taste.vectors(items, known),
        item_inputs(items),
        there.astype(np.float32),
        graph.items,
        graph.degrees,
        links,
        weights,
        trending(items),
        damped,
    )


def _links(item_to_item: ItemToItem, known: Indices) -> tuple[Indices, Floats]:
    """The links of each row of the matrix to others of it: int64 and float32 [n, l], 0 in empty places."""
    to = np.full(item_to_item.weights.shape[0], -1)
    to[known[known >= 0]] = np.flatnonzero(known >= 0)
    found = []
    for row in known.tolist():
        if row < 0:
            found.append((np.empty(0, np.int64), np.empty(0, np.float32)))
            continue
        begin, end = item_to_item.weights.indptr[row : row + 2]
        columns, values = to[item_to_item.weights.indices[begin:end]], item_to_item.weights.data[begin:end]
        found.append((columns[columns >= 0], values[columns >= 0]))
    most = max(1, max(len(columns) for columns, _ in found))
    links, weights = np.zeros((len(known), most), np.int64), np.zeros((len(known), most), np.float32)
    for row, (columns, values) in enumerate(found):
        links[row, : len(columns)], weights[row, : len(columns)] = columns, values
    return links, weights


def strongest(of: Catalogue, most: int) -> Catalogue:
    """With at most so many links an item, those with the largest weights either way."""
    if of.links.shape[1] <= most:
        return of
    best = np.argsort(-np.abs(of.weights), axis=1, kind="stable")[:, :most]
    return replace(of, links=np.take_along_axis(of.links, best, 1), weights=np.take_along_axis(of.weights, best, 1))


def _described(known: Catalogue, items: ItemMatrix) -> bytes:
    rows = [row[row < known.width].tolist() for row in known.categories]
    about = {"ids": items.ids, "category_names": items.category_names, "categories": rows}
    return json.dumps(about, separators=(",", ":")).encode()


def _declared(feature: Aggregate) -> dict[str, Any]:
    """What a device must know to read a feature from events. Raises `NoExport` for one that it cannot read."""
    kind = type(feature).__name__
    if kind not in recommend.READERS:
        raise NoExport(f"a device cannot read {feature.name}: `{recommend.__name__}` has no reader for {kind}")
    said = {
        name: getattr(feature, name)
        for name in ("by", "n", "k", "keys", "half_life_us", "first", "default")
        if hasattr(feature, name)
    }
    if hasattr(feature, "reads"):
        said["windows"] = [(None if window == EVER else window, tile) for _, window, tile in feature.reads]
    if hasattr(feature, "cap"):
        said["cap_us"] = span_of(feature.cap)
    selector = feature.selector()
    return {
        "kind": kind,
        "columns": [c.name for c in feature.columns],
        "of": None if selector is None else selector.terms,
        **said,
    }

"""Recommends on a device: needs NumPy, ONNX Runtime, and the folder that `freshet export` wrote, which has this file.

    python recommend.py history.json -k 10

history.json is a list of what one person did, in any order: {"item_id": "i3", "time": 1700000000} with time in seconds
since 1970; where it was no plain like also "type" ("view", "purchase", "rate", ...) and, of a rating, "value". Item
values are those of the export; features of the person are read from these events, as the server declares them.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

SECOND = 1_000_000
"""Instants are microseconds since 1970, as on the server."""
UNIT = 1_000_000
"""Sums count in millionths, as on the server."""
LIKE = "like"
"""The type of an event that does not say."""
REASON = 1.5
"""A liked item is a reason when it has this many times the attention that equal attention would give it."""
TRENDING = 4
"""The place of what is liked lately among the sources of recall."""

Event = Mapping[str, Any]
Feature = Mapping[str, Any]


class Pick(NamedTuple):
    """One item of an answer; `because` is the item of the history that speaks for it, where one stands out."""

    item_id: str
    score: float
    because: str | None


class Device:
    """An exported folder, loaded. Raises `ValueError` where a file is not the one that was exported."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        files = {name: (folder / name).read_bytes() for name in self.manifest["files"]}
        for name, about in self.manifest["files"].items():
            if hashlib.sha256(files[name]).hexdigest() != about["sha256"]:
                raise ValueError(f"{folder / name} is not the file that was exported")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one question is too small to share out
        self._recall, self._rank = (
            onnxruntime.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
            for name in ("recall.onnx", "rank.onnx")
        )
        items = json.loads(files["items.json"])
        self._ids: list[str] = items["ids"]
        self._rows = {item_id: row for row, item_id in enumerate(self._ids)}
        self._category_names: list[str] = items["category_names"]
        self._categories: list[list[int]] = items["categories"]

    def recommend(
        self, history: Iterable[Event], k: int = 10, at: int | None = None, exclude: Iterable[str] = ()
    ) -> list[Pick]:
        """The best `k` items at an instant (default: now), best first.

        Never what was bought, what is in the liked history, or one of `exclude`.
        """
        at = time.time_ns() // 1000 if at is None else at
        return self.answer(read(self.manifest["features"], [self._event(event) for event in history], at), k, exclude)

    def answer(self, values: Mapping[str, Any], k: int, exclude: Iterable[str] = ()) -> list[Pick]:
        """The same for a person of whom the values of all features are known, from the server for instance."""
        pairs = zip(values["history"], values["history_age_s"], strict=True)
        known = [(self._rows[item_id], max(age, 0.0)) for item_id, age in pairs if item_id in self._rows]
        asked = {
            "liked": np.array([row for row, _ in known] or [-1], dtype=np.int64),
            "ages_s": np.array([age for _, age in known] or [0.0], dtype=np.float32),
            "interest": self._interest(values),
        }
        allowed = np.ones(len(self._ids), dtype=bool)
        barred = chain(values["history"], values["bought"], exclude)
        allowed[[self._rows[item_id] for item_id in barred if item_id in self._rows]] = False
        scores, best, found = self._recall.run(None, asked | {"allowed": allowed})
        candidates = self._candidates([rows[:n].tolist() for rows, n in zip(best, found, strict=True)], allowed)
        if not len(candidates):
            return []
        ranked = {
            "user": np.array([float(values[name]) for name in self.manifest["user_columns"]]),
            "viewed": np.array([self._rows.get(item_id, -1) for item_id in values["viewed"]], dtype=np.int64),
            "candidates": candidates,
            "recalled": scores[:, candidates].T,
        }
        logits, attention = self._rank.run(None, asked | ranked)

        def because(i: int) -> str | None:
            top = int(attention[i].argmax())
            stands_out = len(known) <= 2 or attention[i, top] * len(known) >= REASON
            return self._ids[known[top][0]] if known and stands_out else None

        order = np.argsort(-logits, kind="stable")[:k].tolist()
        return [Pick(self._ids[candidates[i]], float(logits[i]), because(i)) for i in order]

    def _event(self, given: Event) -> Event:
        row = self._rows.get(given["item_id"])
        names = [] if row is None else [self._category_names[c] for c in self._categories[row]]
        at = round(given["time"] * SECOND)
        return {"type": LIKE, "value": None, "user_id": "", **given, "time": at, "categories": names}

    def _interest(self, values: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        weights = dict(zip(values["interest"], values["interest_weight"], strict=True))
        vector = np.array([weights.get(name, 0.0) for name in self._category_names], dtype=np.float32)
        length = float(np.linalg.norm(vector))
        return vector / np.float32(length) if length > 0 else vector

    def _candidates(self, best: Sequence[Sequence[int]], allowed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Each source names its share; what they leave is filled from the first, what is hot, and all others."""
        size = self.manifest["candidates"]
        named = dict.fromkeys(
            row
            for share, rows in zip(self.manifest["shares"], best, strict=True)
            for row in rows[: max(1, round(share * size))]
        )
        for row in chain(best[0], best[TRENDING], map(int, np.flatnonzero(allowed))):
            if len(named) >= size:
                break
            named.setdefault(row)
        return np.array(list(named)[:size], dtype=np.int64)


def read(features: Sequence[Feature], events: Sequence[Event], at: int) -> dict[str, Any]:
    """Every column of the declared features at an instant, from all events of one person."""
    events = sorted(events, key=lambda event: (event["time"], event["item_id"]))
    values: dict[str, Any] = {}
    for feature in features:
        mine = [event for event in events if _counts(feature["of"], event)]
        values.update(zip(feature["columns"], READERS[feature["kind"]](feature, mine, at), strict=True))
    return values


def _counts(of: Sequence[tuple[str, float | None]] | None, event: Event) -> bool:
    value = event["value"]
    return of is None or any(
        kind == event["type"] and (least is None or (value is not None and value >= least)) for kind, least in of
    )


def _windows(feature: Feature, events: Sequence[Event], at: int) -> list[list[Event]]:
    """The events of each window; one begins where the tile begins that holds its first instant."""
    return [
        [e for e in events if window is None or e["time"] // tile >= (at - window) // tile]
        for window, tile in feature["windows"]
    ]


def _texts(event: Event, by: str) -> list[str]:
    text = event.get(by)
    return text if isinstance(text, list) else [] if text is None else [text]


def _total(events: Sequence[Event]) -> float:
    millionths: int = sum(round(e["value"] * UNIT) for e in events if e["value"] is not None)
    return millionths / UNIT


def _count(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    return [len(some) for some in _windows(feature, events, at)]


def _sum(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    return [_total(some) for some in _windows(feature, events, at)]


def _mean(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    valued = _windows(feature, [e for e in events if e["value"] is not None], at)
    return [_total(some) / len(some) if some else feature["default"] for some in valued]


def _distinct(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    """Counted exactly; the server estimates beyond the size of its sketch."""
    return [len({text for e in some for text in _texts(e, feature["by"])}) for some in _windows(feature, events, at)]


def _recent(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    entries = sorted((e["time"], text) for e in events for text in _texts(e, feature["by"]))
    newest = entries[: -feature["n"] - 1 : -1]
    return [[text for _, text in newest], [(at - t) / SECOND for t, _ in newest]]


def _decayed(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    weights: dict[str, float] = {}
    for e in events:
        for text in _texts(e, feature["by"]):
            weights[text] = weights.get(text, 0.0) + 2.0 ** ((e["time"] - at) / feature["half_life_us"])
    heaviest = sorted(weights, key=lambda text: (-weights[text], text))[: feature["keys"]]
    return [sorted(heaviest), [weights[text] for text in sorted(heaviest)]]


def _since(feature: Feature, events: Sequence[Event], at: int) -> list[Any]:
    cap = feature["cap_us"]
    ages = [at - (events[0] if feature["first"] else events[-1])["time"]] if events else [cap]
    return [min(ages[0], cap) / SECOND]


READERS: Mapping[str, Callable[[Feature, Sequence[Event], int], list[Any]]] = {
    "Count": _count,
    "Sum": _sum,
    "Mean": _mean,
    "Distinct": _distinct,
    "Recent": _recent,
    "Decayed": _decayed,
    "Since": _since,
}
"""The aggregates of the server that a device can read."""


def main() -> None:
    """Answer for one history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path, help="the events of one person, as JSON")
    parser.add_argument("-k", type=int, default=10, help="how many items (default: %(default)s)")
    parser.add_argument("--at", type=float, default=None, help="seconds since 1970 (default: now)")
    given = parser.parse_args()
    at = None if given.at is None else round(given.at * SECOND)
    device = Device(Path(__file__).resolve().parent)
    for pick in device.recommend(json.loads(given.history.read_text()), given.k, at):
        json.dump(pick._asdict(), sys.stdout)
        print()


if __name__ == "__main__":
    main()

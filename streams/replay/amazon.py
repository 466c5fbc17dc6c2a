"""Amazon reviews as a source: JSON lines and CSV, packed by gzip or not, of the 2014, 2018 and 2023 collections.

A review becomes an event of type `rate` with the stars as its value. Titles and categories come from the collection's
metadata file where one is given; without it an item's id is its title.
"""

import io
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from streams.catalogue import TITLE_MAX, Item
from streams.events import CATEGORIES_MAX, CATEGORY_MAX_CHARS
from streams.replay import files
from streams.replay.interactions import BadSource, Ids, Interactions

ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
USER, ITEM, STARS, TIME = (
    ("reviewerID", "user_id"),
    ("parent_asin", "asin"),
    ("overall", "rating"),
    ("unixReviewTime", "timestamp"),
)
"""Names of the columns over the years. In 2023 an item is its `parent_asin`: colours and sizes share one."""
MILLISECONDS_FROM = 100_000_000_000
"""Times above this are milliseconds (2023): as seconds they would lie in the year 5138."""


class AmazonReviews:
    """A file of reviews (`.json`, `.jsonl`, `.csv`, each also `.gz`) and, if given, the collection's metadata file."""

    name = "amazon"
    prefix = "az"
    repeats = True

    def __init__(self, path: Path, meta: Path | None = None) -> None:
        self._path, self._meta = files.existing(path), files.existing(meta) if meta else None

    def fingerprint(self) -> str:
        return files.fingerprint([self._path, *([self._meta] if self._meta else [])], self.name)

    def items(self) -> Iterable[Item]:
        return files.with_the_rest(self._titled, self.interactions().items.names)

    def interactions(self) -> Interactions:
        return self._interactions

    @cached_property
    def _interactions(self) -> Interactions:
        table = self._csv() if ".csv" in self._path.suffixes else self._json()
        times = table["time"].to_numpy().astype(np.int64)
        return Interactions(
            users=Ids.of(table["user"]),
            items=Ids.of(table["item"]),
            types=Ids.constant("rate", len(table)),
            times=times * np.where(times >= MILLISECONDS_FROM, 1_000, 1_000_000),
            values=table["stars"].to_numpy(),
        )

    def _json(self) -> pl.DataFrame:
        rows = []
        for number, review in _lines(self._path):
            try:
                rows.append(
                    (
                        _first(review, USER),
                        _first(review, ITEM),
                        float(_first(review, STARS)),
                        int(_first(review, TIME)),
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise BadSource(f"{self._path}, line {number}: no review of a known collection: {error}") from None
        return pl.DataFrame(
            rows, schema={"user": pl.String, "item": pl.String, "stars": pl.Float64, "time": pl.Int64}, orient="row"
        )

    def _csv(self) -> pl.DataFrame:
        data = files.plain(self._path)
        first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")
        headed = any(name in first for name in USER)
        try:
            table = pl.read_csv(io.BytesIO(data), has_header=headed, infer_schema_length=0)
        except pl.exceptions.PolarsError as error:
            raise BadSource(f"{self._path}: {error}") from None
        if headed:
            names = [next((n for n in known if n in table.columns), None) for known in (USER, ITEM, STARS, TIME)]
            if None in names:
                raise BadSource(
                    f"{self._path}: columns are {table.columns}; a user, an item, a rating and a time are needed"
                )
            table = table.select([name for name in names if name])
        elif table.width == 4:
            table = table.select(self._sides(table))
        else:
            raise BadSource(
                f"{self._path}: without a header there must be user, item, rating and time, not {table.width} columns"
            )
        table.columns = ["user", "item", "stars", "time"]
        try:
            return table.with_columns(pl.col("stars").cast(pl.Float64), pl.col("time").cast(pl.Float64).cast(pl.Int64))
        except pl.exceptions.PolarsError as error:
            raise BadSource(f"{self._path}: {error}") from None

    def _sides(self, table: pl.DataFrame) -> list[str]:
        """Files without a header have the user first in 2014 and the item first in 2018: item ids show which."""
        a, b, stars, time = table.columns
        shares = [
            sum(bool(ASIN.fullmatch(v)) for v in table[c].head(1_000).to_list()) / min(len(table), 1_000)
            for c in (a, b)
        ]
        if max(shares) < 0.5 or shares[0] == shares[1]:
            raise BadSource(
                f"{self._path}: neither of the first two columns holds Amazon's item ids; give the file a header"
            )
        return [b, a, stars, time] if shares[0] > shares[1] else [a, b, stars, time]

    @cached_property
    def _titled(self) -> dict[str, Item]:
        if self._meta is None:
            return {}
        known = set(self.interactions().items.names)
        found = (_item(meta) for _, meta in _lines(self._meta))
        return {item.item_id: item for item in found if item and item.item_id in known}


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(files.plain(path).splitlines(), 1):
        if line.strip():
            try:
                yield number, decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadSource(
                    f'{path}, line {number}: no JSON object: {error} (the "loose" 2014 files must be made strict first)'
                ) from None


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"none of {', '.join(names)}")


def _item(meta: dict[str, Any]) -> Item | None:
    item_id = meta.get("parent_asin") or meta.get("asin")
    if not item_id:
        return None
    paths = meta.get("categories") or meta.get("category") or [meta.get("main_category") or meta.get("main_cat")]
    flat = chain.from_iterable(p if isinstance(p, list) else [p] for p in paths)
    names = dict.fromkeys(c.strip()[:CATEGORY_MAX_CHARS] for c in flat if isinstance(c, str) and c.strip())
    return Item(
        item_id=item_id,
        title=(meta.get("title") or "").strip()[:TITLE_MAX] or item_id,
        categories=tuple(names)[:CATEGORIES_MAX],
    )

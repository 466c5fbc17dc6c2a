"""MovieLens as a source: folders of the 100K, 1M, 10M, 20M, 25M, 32M and latest releases, as GroupLens ships them.

A rating becomes an event of type `rate` with the stars as its value. User and item ids compare as numbers.
"""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from streams.catalogue import Item
from streams.replay import files
from streams.replay.interactions import BadSource, Ids, Interactions

NO_GENRE = {"unknown", "(no genres listed)"}
COLUMNS = {"user": pl.Int64, "item": pl.Int64, "stars": pl.Float64, "time": pl.Int64}
RELEASES = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
"""The file of ratings, by which a release is recognised, and its file of films."""


class MovieLens:
    """A MovieLens folder. Raises `BadSource` when it is none."""

    name = "movielens"
    prefix = "ml"
    repeats = False

    def __init__(self, path: Path) -> None:
        found = [ratings for ratings in RELEASES if (path / ratings).is_file()]
        if not found:
            raise BadSource(f"{path} is no MovieLens folder: it has none of {', '.join(RELEASES)}")
        self._ratings, self._films = path / found[0], files.existing(path / RELEASES[found[0]])

    def fingerprint(self) -> str:
        return files.fingerprint([self._ratings, self._films], self.name)

    def items(self) -> Iterable[Item]:
        return self._catalogue.values()

    def interactions(self) -> Interactions:
        data: Path | io.BytesIO = self._ratings
        if self._ratings.suffix == ".dat":  # a separator of two characters is more than the reader takes
            data = io.BytesIO(files.plain(self._ratings).replace(b"::", b"\t"))
        separator = "," if self._ratings.suffix == ".csv" else "\t"
        try:
            table = pl.read_csv(
                data, separator=separator, has_header=separator == ",", new_columns=list(COLUMNS),
                schema_overrides=list(COLUMNS.values()),
            )  # fmt: skip
        except pl.exceptions.PolarsError as error:
            raise BadSource(f"{self._ratings}: {error}") from None
        return Interactions(
            users=Ids.of(table["user"]),
            items=Ids.of(table["item"]),
            types=Ids.constant("rate", len(table)),
            times=table["time"].to_numpy().astype(np.int64) * 1_000_000,
            values=table["stars"].to_numpy(),
        )

    @cached_property
    def _catalogue(self) -> dict[str, Item]:
        lines = files.lines(self._films)
        if self._films.suffix == ".csv":
            return {row["movieId"]: _item(row["movieId"], row["title"], row["genres"]) for row in csv.DictReader(lines)}
        if self._films.suffix == ".dat":
            split = (line.split("::") for line in lines)
            return {item_id: _item(item_id, title, genres) for item_id, title, genres in split}
        genres = [line.split("|")[0] for line in files.lines(self._films.with_name("u.genre"))]
        return {(parts := line.split("|"))[0]: _item_of_100k(parts, genres) for line in lines}


def _item(item_id: str, title: str, genres: str, created_at: int | None = None) -> Item:
    kept = tuple(genre for genre in genres.split("|") if genre and genre not in NO_GENRE)
    return Item(item_id=item_id, title=title.strip() or item_id, categories=kept, created_at=created_at)


def _item_of_100k(parts: list[str], genres: list[str]) -> Item:
    """id | title | release date | video date | address | one flag a genre"""
    flags = parts[5 : 5 + len(genres)]
    created = (
        int(datetime.strptime(parts[2], "%d-%b-%Y").replace(tzinfo=UTC).timestamp()) * 1_000_000 if parts[2] else None
    )
    return _item(parts[0], parts[1], "|".join(g for g, flag in zip(genres, flags, strict=True) if flag == "1"), created)

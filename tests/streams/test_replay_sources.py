"""The formats: small files with made-up content, laid out as the collections are."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from streams.catalogue import Item
from streams.replay import AmazonReviews, BadSource, MovieLens, Source, Table

Row = tuple[str, str, float | None, int]
SECOND = 1_000_000


def rows_of(source: Source) -> set[Row]:
    i = source.interactions()
    assert i.values is not None
    return {
        (i.users.names[u], i.items.names[t], v, at)
        for u, t, v, at in zip(i.users.codes, i.items.codes, i.values.tolist(), i.times.tolist(), strict=True)
    }


RATED: set[Row] = {("10", "2", 4.0, 1_000 * SECOND), ("9", "1", 3.5, 2_000 * SECOND), ("9", "2", 1.0, 3_000 * SECOND)}


@pytest.fixture
def ml_100k(tmp_path: Path) -> Path:
    (tmp_path / "u.data").write_text("10\t2\t4\t1000\n9\t1\t3.5\t2000\n9\t2\t1\t3000\n")
    (tmp_path / "u.genre").write_text("unknown|0\nDrama|1\nWestern|2\n\n")
    films = "1|Caf\xe9 (1990)|01-Feb-1990||http://x|0|1|1\n2|Nothing known||||1|0|0\n"
    (tmp_path / "u.item").write_bytes(films.encode("latin-1"))
    return tmp_path


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    (tmp_path / "ratings.dat").write_text("10::2::4::1000\n9::1::3.5::2000\n9::2::1::3000\n")
    (tmp_path / "movies.dat").write_bytes(
        "1::Caf\xe9: one (1990)::Drama|Western\n2::Nothing known::\n".encode("latin-1")
    )
    return tmp_path


@pytest.fixture
def ml_20m(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n10,2,4.0,1000\n9,1,3.5,2000\n9,2,1.0,3000\n"
    )
    films = 'movieId,title,genres\n1,"Café, The (1990)",Drama|Western\n2,Nothing known,(no genres listed)\n'
    (tmp_path / "movies.csv").write_text(films, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("release", ["ml_100k", "ml_1m", "ml_20m"])
def test_every_release_of_movielens_reads_the_same(release: str, request: pytest.FixtureRequest) -> None:
    source = MovieLens(request.getfixturevalue(release))
    assert rows_of(source) == RATED
    assert source.interactions().users.names == ["9", "10"]  # as numbers, not as text
    first, second = source.items()
    assert first.title.startswith("Café")
    assert (first.categories, second.categories) == (("Drama", "Western"), ())


def test_the_release_date_of_100k_becomes_the_time_of_creation(ml_100k: Path) -> None:
    assert [item.created_at for item in MovieLens(ml_100k).items()] == [633_830_400 * SECOND, None]


def test_a_folder_that_is_no_movielens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"u\.data"):
        MovieLens(tmp_path)


def test_the_fingerprint_follows_the_content(ml_1m: Path) -> None:
    before = MovieLens(ml_1m).fingerprint()
    assert MovieLens(ml_1m).fingerprint() == before
    with (ml_1m / "ratings.dat").open("a") as file:
        file.write("1::1::1::1\n")
    assert MovieLens(ml_1m).fingerprint() != before


BOUGHT: set[Row] = {
    ("AUSER1", "B000000001", 5.0, 1_400_000_000 * SECOND),
    ("AUSER2", "0123456789", 2.0, 1_500_000_000 * SECOND),
}
CSV_2014 = "AUSER1,B000000001,5.0,1400000000\nAUSER2,0123456789,2.0,1500000000\n"
CSV_2018 = "B000000001,AUSER1,5.0,1400000000\n0123456789,AUSER2,2.0,1500000000\n"
CSV_2023 = (
    "user_id,parent_asin,rating,timestamp\nAUSER1,B000000001,5.0,1400000000000\nAUSER2,0123456789,2.0,1500000000000\n"
)
JSON_2018 = "".join(
    json.dumps({"reviewerID": u, "asin": i, "overall": v, "unixReviewTime": at // SECOND, "reviewText": "fine"}) + "\n"
    for u, i, v, at in BOUGHT
)
JSON_2023 = "".join(
    json.dumps({"user_id": u, "parent_asin": i, "asin": "other", "rating": v, "timestamp": at // 1_000}) + "\n"
    for u, i, v, at in BOUGHT
)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", CSV_2014), ("b.csv", CSV_2018), ("c.csv", CSV_2023), ("d.json", JSON_2018), ("e.jsonl", JSON_2023)],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_collection_of_amazon_reads_the_same(tmp_path: Path, name: str, content: str, packed: bool) -> None:
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert rows_of(AmazonReviews(path)) == BOUGHT


def test_titles_of_amazon_come_from_the_metadata_and_else_from_the_id(tmp_path: Path) -> None:
    reviews, meta = tmp_path / "r.csv", tmp_path / "meta.jsonl"
    reviews.write_text(CSV_2014)
    meta.write_text(
        json.dumps({"asin": "B000000001", "title": "A lamp", "categories": [["Home", "Lamps"]]})
        + "\n"
        + json.dumps({"asin": "B00000NONE", "title": "Not reviewed"})
        + "\n"
    )
    items = {item.item_id: item for item in AmazonReviews(reviews, meta).items()}
    assert items == {
        "B000000001": Item("B000000001", "A lamp", ("Home", "Lamps")),
        "0123456789": Item("0123456789", "0123456789"),
    }


@pytest.mark.parametrize("content", ["a,b,5.0,1\n", "{'reviewerID': 'loose'}\n", "x\n"])
def test_what_is_no_review_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / ("a.json" if content.startswith("{") else "a.csv")
    path.write_text(content)
    with pytest.raises(BadSource, match=r"a\.(json|csv)"):
        AmazonReviews(path).interactions()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([1_000, 2_000, 3_000], "s"),
        ([1_000.0, 2_000.0, 3_000.0], "s"),
        ([1_000_000, 2_000_000, 3_000_000], "ms"),
        (["1970-01-01T00:16:40Z", "1970-01-01T00:33:20Z", "1970-01-01T00:50:00Z"], "s"),
    ],
)
def test_any_table_reads_by_its_mapping(tmp_path: Path, kind: str, times: list[object], unit: str) -> None:
    frame = pl.DataFrame(
        {"who": [10, 9, 9], "what": ["2", "1", "2"], "when": times, "stars": [4.0, 3.5, 1.0], "tags": ["a|b", None, ""]}
    )
    path = tmp_path / f"t.{kind}"
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    columns = {"user_id": "who", "item_id": "what", "event_time": "when", "value": "stars", "categories": "tags"}
    source = Table(path, columns, time_unit=unit, event_type="watch")
    assert rows_of(source) == RATED
    assert source.interactions().types.names == ["watch"]
    assert source.interactions().categories == [("a", "b"), (), ()]
    assert [item.title for item in source.items()] == ["1", "2"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user_id": "nobody"}, "no column 'nobody'"),
        ({"colour": "red"}, "no event field"),
        ({}, "no column 'event_time'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, str], said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("user_id,item_id\n1,2\n")
    with pytest.raises(BadSource, match=said):
        Table(path, columns).interactions()

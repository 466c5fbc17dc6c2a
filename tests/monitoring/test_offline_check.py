"""The checks of the offline store find what is lacking and what is there twice, wherever it is."""

from pathlib import Path

from feature_repo import offline
from feature_repo.features import item, user
from freshet.settings import Settings
from monitoring.columns import declared
from monitoring.counting import Applied
from monitoring.offline_check import items_equal, users_equal
from monitoring.oracle import Oracle
from streams.backfill.rows import RowWriter

START = 1_700_000_000_000_000
SECOND = 1_000_000


def applied(count: int) -> list[Applied]:
    return [
        Applied(0, n, "u", f"i{n}", "view", START + n * SECOND, START + n * SECOND, None, None, [])
        for n in range(count)
    ]


def quiet(*_: object) -> None:
    """No progress."""


def test_tiles_that_the_newest_rows_lack_are_missed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    offline.bootstrap(settings, item)
    check = items_equal(settings, Oracle(applied(100)), declared(item), START + 86_400 * SECOND, quiet)
    assert check.mismatches == 100


def test_a_row_that_was_written_twice_is_found(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    offline.bootstrap(settings, user)
    state = user.encode(user.new())
    made = offline.unfinished(settings, user)
    with RowWriter(made, user, "user-0") as writer:
        for _ in range(2):
            writer.add("u", START, START, state, 0)
    offline.finish(made, user)
    offline.publish(settings, user, made)
    check = users_equal(settings, Oracle(applied(1)), {"u": state}, writer.rows, quiet)
    assert check.mismatches == 1

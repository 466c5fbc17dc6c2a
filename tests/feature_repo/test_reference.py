"""The reference page says what is declared."""

from pathlib import Path

from feature_repo.features import item, user
from feature_repo.reference import page

PAGE = Path(__file__).parents[2] / "docs/reference/features.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m feature_repo.reference > docs/reference/features.md"


def test_every_column_has_a_line() -> None:
    for profile in (user, item):
        for column in profile.columns:
            assert any(line.startswith(f"| `{column.name}` | {column.dtype}") for line in page().splitlines())

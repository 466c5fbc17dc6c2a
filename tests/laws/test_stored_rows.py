"""The kernel frames a row for Redis as `feature_repo.layout` does in Python, byte for byte."""

from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_repo import layout
from feature_repo.features import item, user
from streams.events import LATEST
from streams.profiles import Profile

pytestmark = pytest.mark.skipif(layout.stored_by_kernel is None, reason="no kernel was built here: no headers")

_heads = st.tuples(st.integers(-1, (1 << 63) - 2), st.integers(0, LATEST), st.integers(0, LATEST))
_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def state(profile: Profile, version: int, at: int, arrival: int, size: int) -> bytes:
    made = profile.new()
    made.version, made.event_time, made.created = version, at, arrival
    return profile.encode(made) + bytes(size)


@given(st.lists(st.tuples(_keys, _heads, st.integers(0, 20_000)), max_size=8))
@example([("k", (version, at, 0), 0) for version in (-1, 0, 127, 128) for at in (0, 1, 999_999, 1_000_000, 1_000_001)])
@example([("k", (0, 0, 0), size) for size in (80, 90, 91, 92, 16_300, 16_345, 16_346, 16_347)])
def test_rows_are_those_of_the_definition(drawn: list[tuple[str, tuple[int, int, int], int]]) -> None:
    for profile in (user, item):
        states = [(key.encode(), state(profile, *head, size)) for key, head, size in drawn]
        with patch.object(layout, "stored_by_kernel", None):
            expected = layout.stored_rows(profile.name, profile.key, states)
        assert layout.stored_rows(profile.name, profile.key, states) == expected
        assert expected[1] == [arrival for _, (_, _, arrival), _ in drawn]
        assert all(type(row) is layout.StoredRow for row in layout.stored_rows(profile.name, profile.key, states)[0])


@pytest.mark.parametrize("wrong", [b"", b"fs\x04", bytes(100), b"fs\x03" + bytes(60)])
@pytest.mark.parametrize("compiled", [False, True])
def test_bytes_that_are_no_state_are_refused(wrong: bytes, compiled: bool) -> None:
    states = [(b"a", state(user, 1, 1, 1, 0)), (b"b", wrong)]
    by_kernel = layout.stored_by_kernel if compiled else None
    with patch.object(layout, "stored_by_kernel", by_kernel), pytest.raises(layout.NoState) as refused:
        layout.stored_rows("user", "user_id", states)
    assert refused.value.args == (b"b", wrong)

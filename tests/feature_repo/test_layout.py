"""Our framing of rows is Feast's, byte for byte."""

from datetime import UTC, datetime, timedelta

import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import layout
from streams.events import LATEST


@given(st.text(max_size=300).filter(lambda t: t.isprintable()))
def test_keys_are_those_of_feast(text: str) -> None:
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=text)])
    assert layout.entity_key("user_id", text) == _redis_key(layout.PROJECT, key, 3)


@given(st.binary(max_size=40_000))
def test_states_are_framed_as_feast_does(data: bytes) -> None:
    assert layout.pack_bytes(data) == Value(bytes_val=data).SerializeToString()
    assert layout.unpack_bytes(layout.pack_bytes(data)) == data


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_versions_are_framed_as_feast_does(number: int) -> None:
    assert layout.pack_int(number) == Value(int64_val=number).SerializeToString()


@given(st.integers(0, LATEST))
def test_times_are_framed_as_protobuf_does(at: int) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))
    assert layout.pack_time(at) == stamp.SerializeToString()


def test_fields_are_those_of_feast() -> None:
    for name, view in layout.VIEWS.items():
        assert layout.state_field(name) == _mmh3(f"{view}:{layout.STATE[name]}")
        assert layout.version_field(name) == _mmh3(f"{view}:{layout.VERSION[name]}")


def test_a_value_of_another_kind_is_refused() -> None:
    for wrong in (b"", Value(int64_val=3).SerializeToString(), layout.pack_bytes(b"abc")[:-1]):
        with pytest.raises(ValueError, match="feature"):
            layout.unpack_bytes(wrong)


@given(
    st.tuples(st.integers(-1, 1 << 62), st.integers(0, LATEST)),
    st.tuples(st.integers(-1, 1 << 62), st.integers(0, LATEST)),
)
def test_ranks_order_by_version_then_time(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (layout.rank(*one) < layout.rank(*other)) == (one < other)

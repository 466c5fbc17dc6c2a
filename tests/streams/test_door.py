"""The door, without HTTP and Kafka: what is taken, what is refused, and that nothing gets lost between the two."""

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import door
from streams.door import BadBody

NOW = 1_800_000_000_000_000
GOOD = {"user_id": "u", "item_id": "i", "type": "click"}


def admit(elements: list[object], **options: int) -> door.Verdict[door.Event]:
    parts = door.elements(msgspec.json.encode(elements), "application/json", 10_000)
    return door.admit_events(parts, NOW, lambda item: (f"about {item}",), options.get("max_bytes", 65_536), 60_000_000)


def test_one_an_array_and_lines_are_the_same() -> None:
    one = msgspec.json.encode(GOOD)
    assert [bytes(p) for p in door.elements(one, "application/json; charset=utf-8", 9)] == [one]
    assert [bytes(p) for p in door.elements(b"[" + one + b"," + one + b"]", "application/json", 9)] == [one, one]
    assert [bytes(p) for p in door.elements(one + b"\r\n\n" + one + b"\n", "application/x-ndjson", 9)] == [one, one]


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{}", "", 415),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
        (b"12", "application/json", 400),
        (b"[{},", "application/json", 400),
        (b"[" * 200_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\n \n", "application/x-ndjson", 400),
        (b"[1,2,3,4]", "application/json", 413),
        (b"1\n2\n3\n4", "application/x-ndjson", 413),
        (b"[" + b"1," * 1_000_000 + b"1", "application/json", 413),  # not so much as read
        (b"\n" * 1_000_000 + b"{}", "application/x-ndjson", 413),
    ],
)
def test_bodies_of_which_nothing_can_be_read(body: bytes, media: str, status: int) -> None:
    with pytest.raises(BadBody) as refusal:
        door.elements(body, media, 3)
    assert refusal.value.status == status


def test_a_bad_event_is_refused_with_its_index_and_reason_and_the_others_go_in() -> None:
    verdict = admit(
        [GOOD, {"user_id": "u"}, 7, GOOD | {"event_id": "mine", "value": 1e9}, GOOD | {"colour": "red"}, GOOD]
    )
    assert len(verdict.admitted) == 2
    assert [(r.index, r.event_id) for r in verdict.refused] == [(1, None), (2, None), (3, "mine"), (4, None)]
    assert [g.index for g in verdict.generated] == [0, 5]
    assert [g.event_id for g in verdict.generated] == [e.event_id for e in verdict.admitted]
    assert [door.reason_class(r.reason) for r in verdict.refused] == ["item_id", "malformed", "value", "unknown_field"]


def test_deep_nesting_is_refused_and_not_an_error() -> None:
    bomb = b'{"user_id":"u","properties":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    verdict = door.admit_events([bomb], NOW, lambda _: (), 65_536, 0)
    assert door.reason_class(verdict.refused[0].reason) == "malformed"


def test_a_large_event_is_refused() -> None:
    verdict = admit([GOOD | {"properties": {"note": "x" * 2_000}}, GOOD], max_bytes=1_024)
    assert [r.index for r in verdict.refused] == [0]
    assert door.reason_class(verdict.refused[0].reason) == "too_large"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-20", "noon"])
def test_a_time_that_is_none_in_utc_is_refused_and_the_others_go_in(time: str) -> None:
    verdict = admit([GOOD | {"event_time": time}, GOOD])
    assert len(verdict.admitted) == 1
    assert [door.reason_class(r.reason) for r in verdict.refused] == ["event_time"]


@pytest.mark.parametrize("name", ["session_id", "request_id"])
def test_texts_that_go_with_an_event_to_the_items_are_short(name: str) -> None:
    verdict = admit([GOOD | {name: "é" * 129}, GOOD | {name: "é" * 128}])
    assert len(verdict.admitted) == 1
    assert [door.reason_class(r.reason) for r in verdict.refused] == [name]


def test_categories_come_from_the_catalogue_unless_the_client_gives_them() -> None:
    ours, theirs = admit([GOOD, GOOD | {"categories": ["mine"]}]).admitted
    assert (ours.categories, theirs.categories) == (("about i",), ("mine",))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {}, optional={name: json_values | st.just("click") for name in (*door.Event.__struct_fields__, "colour")}
)


@given(st.lists(fields | json_values, min_size=1, max_size=8))
def test_every_element_is_either_admitted_or_refused_whatever_it_is(elements: list[object]) -> None:
    verdict = admit(elements)
    assert len(verdict.admitted) + len(verdict.refused) == len(elements)
    assert len({r.index for r in verdict.refused}) == len(verdict.refused)
    for event in verdict.admitted:
        assert event.arrival == NOW
        assert door.events.decode(door.events.encode(event)) == event


def test_generated_ids_sort_by_time_and_are_uuids_of_version_7() -> None:
    first, second = door.new_id(NOW), door.new_id(NOW + 5_000)
    assert first < second
    assert UUID(first).version == 7
    assert UUID(first).int >> 80 == NOW // 1000

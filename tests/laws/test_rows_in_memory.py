"""The rows in memory: both heaps are a mapping, and take what they say."""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.fold import ring, rows
from streams.fold.rows import Heap, PlainHeap

HEAPS = [PlainHeap] if Heap is PlainHeap else [PlainHeap, Heap]
_keys = st.integers(0, 400).map(b"k%d".__mod__) | st.binary(max_size=3) | st.just(bytes(300))
_steps = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "drop", "cold", "tidy"]), _keys, st.binary(max_size=200)),
    max_size=300,
)


@pytest.mark.parametrize("kind", HEAPS)
@given(steps=_steps, first=st.integers(0, 300))
def test_it_is_a_mapping_whatever_was_let_go(
    kind: type[PlainHeap], steps: list[tuple[str, bytes, bytes]], first: int
) -> None:
    heap, expected = kind(), dict[bytes, bytes]()
    begun = [("put", b"k%d" % n, b"row %d" % n) for n in range(first)]
    for what, key, row in begun + steps:
        if what == "put":
            heap.put(key, row)
            expected[key] = row
        elif what == "drop":
            heap.drop((key,))
            expected.pop(key, None)
        elif what == "tidy":
            heap.tidy()
        else:
            pinned, before = {key, b"k7"}, heap.size
            going = heap.cold(10 * len(row), pinned, ())
            assert not going.keys() & pinned
            assert len(heap) == len(expected), "nothing leaves before it is dropped"
            assert going == {key: expected.pop(key) for key in going}
            for one in going:
                heap.drop((one,))
            assert before - heap.size >= 10 * len(row) or not expected.keys() - pinned
        assert len(heap) == len(expected)
    assert dict(heap.rows(list(heap))) == expected
    assert {key: heap.get(key) for key in expected} == expected
    assert heap.get(b"nobody's") is None
    with pytest.raises(KeyError):
        heap.rows([*expected, b"nobody's"])


@pytest.mark.parametrize("kind", HEAPS)
def test_what_it_takes_grows_with_its_rows_and_shrinks_with_them(kind: type[PlainHeap]) -> None:
    heap = kind()
    for n in range(1_000):
        heap.put(b"k%d" % n, bytes(1_000))
    full = heap.size
    assert 1_000_000 < full < 1_200_000
    for n in range(1_000):
        heap.put(b"k%d" % n, bytes(100))
    assert 100_000 < heap.size < full - 850_000
    for n in range(1_000):
        heap.drop((b"k%d" % n,))
    assert heap.size == 0
    assert list(heap) == []


@pytest.mark.skipif(rows.Heap is PlainHeap, reason="no kernel was built here: no headers")
def test_rows_that_were_used_stay_when_others_are_let_go() -> None:
    heap = Heap()
    for n in range(1_000):
        heap.put(b"k%d" % n, bytes(100))
    for _ in range(5):
        for n in range(100):
            heap.put(b"k%d" % n, bytes(100))
        going = heap.cold(10_000)
        assert len(going) > 50
        assert not going.keys() & {b"k%d" % n for n in range(100)}
        heap.drop(going)


@pytest.mark.skipif(rows.Heap is PlainHeap, reason="no kernel was built here: no headers")
def test_memory_that_rows_have_left_is_given_back() -> None:
    """Rows that grow at uneven rates leave holes of each size that they had."""
    chance, heap, expected = random.Random(1), Heap(), {b"k%d" % n: bytes(300) for n in range(20_000)}
    for key, row in expected.items():
        heap.put(key, row)
    for _ in range(200_000):
        key = b"k%d" % (20_000 * chance.random() ** 3)
        expected[key] = (expected[key] + chance.randbytes(20))[:2_000]
        heap.put(key, expected[key])
    before = heap.reserved
    heap.tidy()
    sizes = len({len(row) // 32 for row in expected.values()})
    assert heap.reserved < 0.8 * before
    assert heap.reserved < 16 / 15 * heap.size + 2 * sizes * 32_768
    assert dict(heap.rows(list(heap))) == expected
    assert all(heap.get(key) == row for key, row in expected.items())


@pytest.mark.skipif(ring.Numbers is set, reason="no kernel was built here: no headers")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "update", "difference_update", "clear"]),
            st.lists(st.integers(0, 40) | st.integers(0, (1 << 64) - 1), min_size=1, max_size=400),
        )
    )
)
def test_remembered_numbers_are_a_set(steps: list[tuple[str, list[int]]]) -> None:
    numbers, expected = ring.Numbers(), set[int]()
    for what, some in steps:
        if what == "clear":
            numbers.clear()
            expected.clear()
        elif what == "add":
            numbers.add(some[0])
            expected.add(some[0])
        else:
            getattr(numbers, what)(array("Q", some))
            getattr(expected, what)(some)
        assert len(numbers) == len(expected)
        assert set(numbers) == expected
        assert [number in numbers for number in some] == [number in expected for number in some]


@pytest.mark.skipif(rows.Heap is PlainHeap, reason="no kernel was built here: no headers")
def test_a_heap_that_is_full_keeps_gaps_everywhere() -> None:
    """Rows that go in the order of the table would leave it without a gap ahead of them, and each look would go through
    thousands of places. A key lies at its hash or as close behind it as there was room, so its place is known here."""
    heap, places = Heap(), 1 << 17  # which hold 81,920 rows
    for n in range(400_000):
        heap.put(b"u%d" % n, bytes(20))
        if len(heap) > 80_000 and n % 100 == 0:
            heap.drop(heap.cold(heap.size // 64))
    assert 70_000 < len(heap) <= 80_100
    homes = [hash(key) % places for key in heap]
    beyond = [home for home in homes[:1_000] if home > places // 2]  # these had no room at the end
    homes = [home for home in homes[:1_000] if home <= places // 2] + homes[1_000:] + beyond
    at = longest = 0
    for home in homes:
        at = max(at + 1, home)
        longest = max(longest, at - home)
    assert longest < 1_000

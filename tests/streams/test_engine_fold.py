"""Laws of the pure fold: how a stream is cut must leave no trace, and every record is accounted for."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.features import item
from freshet.prove.workload import POISON, Shape, records
from freshet.settings import Settings
from streams.engine.batches import batches
from streams.engine.owner import outputs
from streams.events import Event, encode
from streams.fold import deltas, states
from streams.fold.items import ItemFold
from streams.fold.records import ROW_MAX, DeadLetter, Meta, Record, Row, decode_meta, encode_json
from streams.fold.ring import BLOCK, BadRing, Ring
from streams.fold.states import Gap, Snapshot
from streams.fold.users import UserFold
from streams.profiles import header
from streams.topics import partition_of

START = 1_780_000_000_000_000
DAY = 86_400_000_000


def stream(count: int, seed: int = 1, poison: float = 0.05) -> list[Record]:
    """Records of one partition, with retries and poison."""
    pairs = records(count, seed, Shape(users=20, items=8, retries=0.1, poison=poison))
    return [(offset, key, value) for offset, (key, value) in enumerate(pairs)]


def view(event_id: str, at: int = START, user_id: str = "u", item_id: str = "i", **more: object) -> bytes:
    fields = {
        "event_id": event_id,
        "user_id": user_id,
        "item_id": item_id,
        "type": "view",
        "event_time": at,
        "arrival": at,
    }
    return json.dumps(fields | more).encode()


def fold(window: int = 4096) -> UserFold:
    return UserFold(0, window, 60_000_000, partitions=1)


class Log:
    """A compacted changelog in memory: what a restore would read."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.deltas: list[bytes] = []
        self.letters: list[DeadLetter] = []

    def write(self, snapshot: Snapshot) -> None:
        written: list[Row] = [*snapshot.rows, *snapshot.records]
        for key, value in written:
            assert key is not None
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.deltas += [data for _, data in snapshot.deltas]
        self.letters += snapshot.rejected

    def restore(self, into: UserFold) -> UserFold:
        into.load(list(self.rows.items()))
        into.loaded()
        return into


def cuts(records: list[Record], at: set[int]) -> Iterator[list[Record]]:
    edges = [0, *sorted(at), len(records)]
    for start, end in pairwise(edges):
        yield records[start:end]


def items_of(handed: list[bytes]) -> dict[bytes, tuple[object, ...]]:
    """Item states after all deltas, without their versions, which are the deltas' offsets and so follow the cuts."""
    merged = ItemFold(0)
    merged.fold([(3 * i, None, value) for i, value in enumerate(handed)])
    states = {}
    for key, row in merged.snapshot().rows:
        state = item.decode(row)
        state.version = 0
        states[key] = (item.encode(state), state.newest)
    return states


@given(at=st.sets(st.integers(0, 400), max_size=12), restarts=st.sets(st.integers(0, 12)))
def test_commits_and_restarts_leave_no_trace(at: set[int], restarts: set[int]) -> None:
    source = stream(400)
    whole, once = Log(), fold()
    once.fold(source)
    whole.write(once.snapshot())

    log, current = Log(), fold()
    for number, part in enumerate(cuts(source, at)):
        current.fold(part)
        log.write(current.snapshot())
        if number in restarts:
            current = log.restore(fold())
    assert log.rows == whole.rows, "states, ring and meta, byte for byte"
    assert [letter.offset for letter in log.letters] == [letter.offset for letter in whole.letters]
    assert items_of(log.deltas) == items_of(whole.deltas)


def test_what_was_not_committed_is_folded_again_to_the_same_bytes() -> None:
    source, log = stream(600), Log()
    first = fold()
    first.fold(source[:250])
    log.write(first.snapshot())
    first.fold(source[250:400])  # and killed here
    second = log.restore(fold())
    assert second.meta.next_offset == 250
    second.fold(source[250:])
    log.write(second.snapshot())
    once = fold()
    once.fold(source)
    assert log.rows.items() >= dict(once.snapshot().rows).items()


@given(count=st.integers(1, 300), seed=st.integers(0, 99))
def test_every_record_is_accounted_for(count: int, seed: int) -> None:
    folded = fold()
    folded.fold([(offset + 70, key, value) for offset, key, value in stream(count, seed)])
    meta = folded.meta
    assert meta.start_offset == 70
    assert meta.applied + meta.late + meta.duplicate + meta.rejected == meta.next_offset - meta.start_offset == count
    assert len(folded.snapshot().rejected) == meta.rejected


def test_a_retry_counts_once_also_after_a_restart() -> None:
    log, first = Log(), fold()
    first.fold([(0, b"u", view("a")), (1, b"u", view("a"))])
    log.write(first.snapshot())
    second = log.restore(fold())
    second.fold([(2, b"u", view("a")), (3, b"u", view("b"))])
    assert (second.meta.applied, second.meta.duplicate) == (2, 2)
    assert second.meta.fingerprint != first.meta.fingerprint


@pytest.mark.parametrize("value", POISON)
def test_poison_is_rejected_with_its_reason_and_the_fold_goes_on(value: bytes) -> None:
    folded = fold()
    folded.fold([(0, b"u1", value), (1, b"u", view("a"))])
    snapshot = folded.snapshot()
    (letter,) = snapshot.rejected
    assert (letter.offset, letter.key, letter.value, letter.topic) == (0, b"u1", value, "events")
    assert letter.reason
    assert [key for key, _ in snapshot.rows] == [b"u"]


def test_a_deleted_record_a_foreign_key_and_a_foreign_partition_are_rejected() -> None:
    home = partition_of(b"u", 4)
    folded = UserFold(home, 4096, 60_000_000, partitions=4)
    stranger = next(f"x{i}" for i in range(9) if partition_of(f"x{i}".encode(), 4) != home)
    folded.fold([(0, b"u", None), (1, b"v", view("a")), (2, None, view("b")), (3, b"u", view("c"))])
    folded.fold([(4, stranger.encode(), view("d", user_id=stranger))])
    assert (folded.meta.applied, folded.meta.rejected) == (1, 4)
    assert "murmur2" in folded.snapshot().rejected[-1].reason


def test_an_event_from_the_future_or_far_too_late_changes_nothing() -> None:
    folded = fold()
    future = view("f", START + 61_000_000, arrival=START)
    folded.fold([(0, b"u", view("a")), (1, b"u", view("late", START - 40 * DAY, arrival=START)), (2, b"u", future)])
    assert (folded.meta.applied, folded.meta.late, folded.meta.rejected) == (1, 1, 1)


def test_a_gap_stops_the_fold() -> None:
    folded = fold()
    folded.fold([(5, b"u", view("a"))])
    with pytest.raises(Gap, match="expected 6, got 8"):
        folded.fold([(8, b"u", view("b"))])
    fresh = fold()
    fresh.begin(3)
    with pytest.raises(Gap, match="expected 3, got 4"):
        fresh.fold([(4, b"u", view("a"))])


def test_the_second_stage_notices_what_it_never_got_and_what_it_got_before() -> None:
    log, source = Log(), fold()
    for n in range(4):
        source.fold([(n, b"u", view(str(n)))])
        log.write(source.snapshot())
    items = ItemFold(0)
    items.fold([(9, None, log.deltas[0])])
    with pytest.raises(Gap, match="offset 9 came after 9"):
        items.fold([(9, None, log.deltas[1])])
    with pytest.raises(Gap, match="item-deltas partition 0: expected event 1 of events partition 0, got 2"):
        items.fold([(10, None, log.deltas[2])])
    with pytest.raises(Gap, match="expected event 1 of events partition 0, got 0"):
        items.fold([(11, None, log.deltas[0])])
    restored, saved = ItemFold(0), items.snapshot()
    restored.load([*saved.rows, *saved.records])
    restored.fold([(12, None, log.deltas[1])])
    assert restored.meta.applied == 2


def test_the_version_of_a_state_is_the_offset_of_its_last_applied_event() -> None:
    folded = fold()
    folded.fold([(7, b"u", view("a")), (8, b"u", view("a")), (9, b"u", view("b")), (10, b"u", b"poison")])
    snapshot = folded.snapshot()
    head = header(next(iter(snapshot.rows))[1])
    assert head is not None
    assert head.version == 9
    assert [len(deltas.decode(data).events) for _, data in snapshot.deltas] == [2]
    assert folded.snapshot().deltas == []


def test_a_state_that_no_record_can_carry_stays_as_it_was_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = fold()
    folded.fold([(0, b"u", view("a", type="click")), (1, b"v", view("b", user_id="v"))])
    before = dict(folded.snapshot().rows)
    monkeypatch.setattr(states, "ROW_MAX", len(before[b"u"]) + 20)
    folded.fold([(2, b"u", view("c", type="click", item_id="i" * 99)), (3, b"v", view("d", user_id="v"))])
    snapshot = folded.snapshot()
    assert [key for key, _ in snapshot.rows] == [b"v"]
    assert [(letter.topic, letter.key, letter.offset) for letter in snapshot.rejected] == [("user-features", b"u", 2)]
    assert folded.rows.get(b"u") == before[b"u"]
    folded.fold([(4, b"u", view("e", type="click"))])
    assert dict(folded.snapshot().rows).keys() == {b"u"}, "the key works again from what it was"


def test_events_that_do_not_fit_into_one_record_become_several_deltas() -> None:
    events = [Event(str(n), "u" * 200, "i" * 250, "view", START, START, None, ("c" * 64,) * 32) for n in range(1_000)]
    records = deltas.encode(3, 70, events)
    assert len(records) > 2
    assert max(map(len, records)) <= ROW_MAX
    items = ItemFold(0)
    items.meta.passed[3] = 70
    items.fold([(n, None, data) for n, data in enumerate(records)])
    ((_, row),) = items.snapshot().rows
    assert item.live_values(row, START)["views_7d"] == 1_000
    assert items.meta.passed == {3: 1_070}


def test_a_damaged_delta_becomes_a_dead_letter() -> None:
    items = ItemFold(2)
    items.fold([(0, b"i", b"nonsense"), (4, None, None)])
    assert [(letter.topic, letter.partition, letter.offset) for letter in items.snapshot().rejected] == [
        ("item-deltas", 2, 0),
        ("item-deltas", 2, 4),
    ]


def test_a_huge_record_becomes_a_letter_that_fits() -> None:
    letter = DeadLetter.of("events", 0, 1, "too large", b"k", b"x" * 10_000_000)
    assert (letter.value, letter.value_bytes) == (None, 10_000_000)
    largest = DeadLetter.of("events", 0, 1, "r", b"k" * 10_000_000, b"x" * 524_288)
    assert len(encode_json(largest)) + len(largest.key or b"") < ROW_MAX


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"k" * 600_000, b"no event"),
        (b"k" * 200_000, b"x" * 520_000),
        (b"u", view("e", session_id="x" * 950_000)),
        (b"u", view("e", request_id="x" * 905_000)),
        (b"u", view("e", properties={"note": "x" * 950_000})),
    ],
    ids=["key", "key and value", "session", "request", "properties"],
)
def test_whatever_a_record_holds_its_commit_fits_into_batches(key: bytes, value: bytes) -> None:
    mine = fold()
    mine.fold([(0, key, value)])
    snapshot = mine.snapshot()
    assert batches((), snapshot.rows) or not len(snapshot.rows)
    for others in outputs(Settings(), mine.log, 0, snapshot).values():
        assert batches(others)


def test_the_meta_record_is_plain_json_and_keeps_64_bits() -> None:
    meta = Meta(0, 10, 8, 0, 1, 1, (1 << 64) - 1)
    assert decode_meta(encode_json(meta)) == meta
    assert json.loads(encode_json(meta))["fingerprint"] == (1 << 64) - 1


@given(
    count=st.integers(0, 5_000),
    windows=st.tuples(*[st.integers(1, 4)] * 2),
    saves=st.sets(st.integers(0, 5_000), max_size=5),
)
def test_a_ring_remembers_at_least_its_window_and_little_more(
    count: int, windows: tuple[int, int], saves: set[int]
) -> None:
    """Through restarts, and when the window is made smaller or larger at one of them."""
    window = windows[0] * BLOCK
    ring, log = Ring(window), {}
    for n in range(count):
        ring.add(n)
        if n in saves or n == count - 1:
            log |= dict(ring.records())
            ring = Ring(window)
            for key, value in log.items():
                ring.load(key, value)
            ring.loaded(n + 1)
    assert set(range(max(0, count - window), count)) <= set(ring.seen)
    assert len(ring.seen) <= min(count, window + BLOCK - 1)
    other = Ring(windows[1] * BLOCK)
    for key, value in (log | dict(ring.records())).items():
        other.load(key, value)
    other.loaded(count)
    assert set(range(max(0, count - min(windows) * BLOCK), count)) <= set(other.seen)
    assert len(other.seen) <= windows[1] * BLOCK + BLOCK - 1


def test_a_ring_that_does_not_belong_to_its_meta_record_is_refused() -> None:
    ring = Ring(BLOCK)
    for n in range(BLOCK + 3):
        ring.add(n)
    records = ring.records()
    for applied in (BLOCK, BLOCK + 4, 3 * BLOCK + 3):
        other = Ring(BLOCK)
        for key, value in records:
            assert key is not None
            other.load(key, value)
        with pytest.raises(BadRing):
            other.loaded(applied)


def test_an_event_of_the_door_is_an_event_of_the_fold() -> None:
    folded = fold()
    folded.fold([(0, "é".encode(), encode(Event("a", "é", "i", "view", START, START)))])
    assert folded.meta.applied == 1

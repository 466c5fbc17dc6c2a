"""The Flink job without Flink: a fold on keyed state does what the worker's does, however it is cut and restarted."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.prove.workload import Shape, records
from freshet.settings import Settings
from streams.engine.owner import outputs
from streams.flink import checkpoints
from streams.flink.keyed import Step, unpack
from streams.fold.items import ItemFold
from streams.fold.records import META_KEY, Record, decode_meta
from streams.fold.states import Fold, Gap
from streams.fold.users import UserFold
from streams.topics import ITEM_DELTAS, USER_FEATURES

SETTINGS = Settings(partitions=1, dedup_window=4096)
Written = tuple[str, int, bytes | None, bytes | None]


class State(dict[str, bytes]):
    """Flink's map state of one key."""

    put = dict.__setitem__
    put_all = dict.update
    remove = dict.__delitem__


def gathered(some: list[Record]) -> bytes:
    """What `Transport.Gather` makes of records."""

    def field(value: bytes | None) -> bytes:
        return pack(">i", -1) if value is None else pack(">i", len(value)) + value

    return b"".join(pack(">q", offset) + field(key) + field(value) for offset, key, value in some)


def scattered(data: bytes) -> Iterator[Written]:
    """What `Transport.Scatter` reads."""
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(data[at - 4 : at], "big", signed=True)

    def field() -> bytes | None:
        nonlocal at
        size = number()
        if size < 0:
            return None
        at += size
        return data[at - size : at]

    while at < len(data):
        topic = field()
        assert topic is not None
        yield topic.decode(), number(), field(), field()


def stream(count: int) -> list[Record]:
    shape = Shape(users=20, items=8, retries=0.1, poison=0.05)
    return [(offset, key, value) for offset, (key, value) in enumerate(records(count, 1, shape))]


def users(partition: int) -> Fold:
    return UserFold.of(SETTINGS, partition)


def plainly(fold: Fold, batches: list[list[Record]]) -> list[Written]:
    """What the worker writes, a commit for each batch."""
    written: list[Written] = []
    for batch in batches:
        fold.fold(batch)
        snapshot = fold.snapshot()
        written += [(SETTINGS.topic(fold.log), 0, key, value) for key, value in snapshot.rows]
        for target, others in outputs(SETTINGS, fold.log, 0, snapshot).items():
            written += [(target.topic, target.partition, key, value) for key, value in others]
    return written


def on_state(make: Callable[[int], Fold], batches: list[list[Record]], restarts: set[int]) -> list[Written]:
    """What the Flink job writes that is started again before some of the batches, from its state alone."""
    own, rows = State(), State()
    step, written = Step(SETTINGS, make, own, rows), list[Written]()
    for n, batch in enumerate(batches):
        if n in restarts:
            step = Step(SETTINGS, make, own, rows)
        written += scattered(step(0, gathered(batch)))
    return written


@given(cuts=st.sets(st.integers(1, 599), max_size=8), restarts=st.sets(st.integers(0, 8)))
def test_users_on_state_are_those_of_the_worker_whatever_the_cuts_and_restarts(
    cuts: set[int], restarts: set[int]
) -> None:
    some, edges = stream(600), [0, *sorted(cuts), 600]
    batches = [some[a:b] for a, b in pairwise(edges)]
    written = on_state(users, batches, restarts)
    assert written == plainly(users(0), batches)
    metas = [value for topic, _, key, value in written if topic == USER_FEATURES and key == META_KEY]
    assert decode_meta(metas[-1] or b"").duplicate > 20


@given(restarts=st.sets(st.integers(0, 30)))
def test_items_on_state_are_those_of_the_worker(restarts: set[int]) -> None:
    some = stream(600)
    written = plainly(users(0), [some[at : at + 20] for at in range(0, 600, 20)])
    handed = [(2 * n, None, value) for n, (topic, _, _, value) in enumerate(written) if topic == ITEM_DELTAS]
    batches = [[delta] for delta in handed]
    assert on_state(ItemFold, batches, restarts) == plainly(ItemFold(0), batches)


def test_a_state_and_a_source_that_do_not_fit_together_stop_the_job() -> None:
    some = stream(20)
    with pytest.raises(Gap, match="expected 10, got 15"):
        on_state(users, [some[:10], some[15:]], {1})


@given(st.lists(st.tuples(st.integers(0, 2**62), st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9))))
def test_a_batch_reads_as_what_was_gathered(some: list[Record]) -> None:
    assert list(unpack(gathered(some))) == some


def test_the_last_complete_checkpoint_is_taken_up(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    for folder in ("a/chk-9", "a/chk-10", "b/chk-2"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "_metadata").touch()
    (tmp_path / "b/chk-11").mkdir()  # begun, and never completed
    assert checkpoints.newest(tmp_path) == tmp_path / "a/chk-10"

"""The rows on disk: a mapping that keeps what it was given, and a checkpoint that is trusted only where it can be."""

import asyncio
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from freshet.settings import Settings
from streams.engine import checkpoint, disk, kept, stage
from streams.engine.batches import Batch, batches, packed
from streams.engine.checkpoint import Checkpoint, Taken
from streams.engine.kept import KeptRows, Memory
from streams.engine.restore import Offsets, Target
from streams.engine.spill import AT_ONCE, Spill
from streams.engine.transaction import Sent
from streams.engine.unpacking import BadBatch
from streams.fold.records import Own, State
from streams.fold.ring import BadRing
from streams.fold.rows import Heap, PlainHeap
from streams.fold.users import UserFold
from streams.topics import EVENTS, USER_FEATURES

META = b"\0meta"
FIRST: list[State] = [(b"ada", b"1"), (b"bob", b"2"), (META, b"m")]
SECOND: list[State] = [(b"ada", b"3"), (META, b"n")]


def append(to: Checkpoint, records: list[State], position: int) -> None:
    to.append(packed(records), len(records), position)


def written(folder: Path) -> None:
    kept = Checkpoint(folder)
    append(kept, FIRST, 3)
    append(kept, SECOND, 5)
    kept.close()


async def content(of: Checkpoint) -> list[State]:
    found: list[State] = []
    async for commit in of.read():
        records = MemoryRecords(bytes(commit))
        while (batch := records.next_batch()) is not None:
            found += [(record.key, record.value) for record in batch]
    return found


async def test_a_checkpoint_outlives_its_process(tmp_path: Path) -> None:
    written(tmp_path)
    again = Checkpoint(tmp_path)
    assert (again.position, again.records, await content(again)) == (5, 5, FIRST + SECOND)
    append(again, [(b"eve", None)], 9)
    assert (again.position, again.records, await content(again)) == (9, 6, [*FIRST, *SECOND, (b"eve", None)])
    again.close()


async def test_a_commit_that_is_not_whole_is_cut_off_wherever_it_ends(tmp_path: Path) -> None:
    written(tmp_path / "whole")
    whole = (tmp_path / "whole" / "commits").read_bytes()
    first = Checkpoint(tmp_path / "first")
    append(first, FIRST, 3)
    first.close()
    border = (tmp_path / "first" / "commits").stat().st_size
    for size in range(len(whole)):
        (tmp_path / "first" / "commits").write_bytes(whole[:size])
        found = Checkpoint(tmp_path / "first")
        expected = (3, FIRST) if size >= border else (0, [])
        assert (found.position, await content(found)) == expected, size
        append(found, SECOND, 7)  # and it goes on from there
        assert await content(found) == expected[1] + SECOND
        found.close()


async def test_what_is_old_or_damaged_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "boot", "nonsense", "head", "batch"):
        written(tmp_path / name)
    (tmp_path / "nonsense" / "commits").write_bytes(b"no commits" * 1_000)
    for name, at in (("head", 8), ("batch", -9)):
        file = tmp_path / name / "commits"
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "OLDEST_S", -1)
        old = Checkpoint(tmp_path / "old")
    (tmp_path / "boot_id").write_text("another")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "BOOT", tmp_path / "boot_id")
        boot = Checkpoint(tmp_path / "boot")
    for found in (old, boot, Checkpoint(tmp_path / "nonsense"), Checkpoint(tmp_path / "head")):
        assert (found.position, found.records, await content(found)) == (0, 0, [])
        found.close()
    found = Checkpoint(tmp_path / "batch")
    with pytest.raises(BadBatch):
        await content(found)
    found.clear()
    assert (found.position, found.records, await content(found)) == (0, 0, [])
    found.close()


def test_one_process_has_it_open(tmp_path: Path) -> None:
    mine = Checkpoint(tmp_path)
    with pytest.raises(Taken, match="two workers"):
        Checkpoint(tmp_path)
    mine.close()
    Checkpoint(tmp_path).close()


async def test_a_rewriting_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    written(tmp_path)
    kept = Checkpoint(tmp_path)
    kept.begin()
    kept.add([(b"ada", b"3")])
    append(kept, [(b"bob", b"4"), (META, b"o")], 8)  # a commit meanwhile
    assert await content(kept) == [*FIRST, *SECOND, (b"bob", b"4"), (META, b"o")]
    kept.finish([(META, b"o")])
    expected = [(b"ada", b"3"), (b"bob", b"4"), (META, b"o"), (META, b"o")]
    assert (kept.position, kept.records, await content(kept)) == (8, 4, expected)
    kept.begin()
    kept.close()  # in the middle of another one
    again = Checkpoint(tmp_path)
    assert (again.position, await content(again)) == (8, expected)
    again.close()


def _twice(kept: Checkpoint, row: bytes) -> None:
    for _ in range(2):
        append(kept, [(b"k", row)], 4)


@pytest.mark.parametrize("size", [1, disk.LARGE])
def test_a_disk_that_is_full_is_an_error_and_leaves_what_was_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """What is large is written meanwhile, so its error comes out of the next call."""
    kept = Checkpoint(tmp_path)
    append(kept, FIRST, 3)
    pwritev, pwrite = os.pwritev, os.pwrite
    monkeypatch.setattr(disk.os, "pwritev", lambda fd, parts, at: pwritev(fd, [b"".join(parts)[:50]], at))
    monkeypatch.setattr(disk.os, "pwrite", lambda fd, view, at: pwrite(fd, view[: disk.BLOCK], at))
    with pytest.raises(OSError, match="No space left"):
        _twice(kept, bytes(size))
    kept.close()
    monkeypatch.undo()
    again = Checkpoint(tmp_path)
    assert (again.position, again.records) == (3, 3)
    again.close()


def sent(records: list[State], end: int) -> Sent:
    made: list[Batch] = batches(records)
    for batch in made:
        batch._set_producer_state(1, 1, 1)
    return Sent(made, end)


def room_for(rows: int) -> int:
    """Bytes of memory for so many rows of ten bytes."""
    heap = Heap()
    for n in range(rows):
        heap.put(b"k%03d" % n, b"%010d" % n)
    return heap.size


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 9), st.binary(min_size=1, max_size=30)),
        st.tuples(st.just("delete"), st.integers(0, 9), st.just(b"")),
        st.tuples(st.sampled_from(["take", "commit", "rewrite", "step", "restart"]), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


@given(steps=steps, most=st.integers(0, 3))
def test_rows_on_disk_are_a_mapping_whatever_memory_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bytes]], most: int
) -> None:
    """A restart loses what is not committed; the rest comes back from the checkpoint and the log after it."""
    asyncio.run(_are_a_mapping(tmp_path_factory.mktemp("rows"), steps, most))


async def _are_a_mapping(folder: Path, steps: list[tuple[str, int, bytes]], most: int) -> None:
    log: list[State] = []

    async def opened() -> tuple[KeptRows, dict[bytes, bytes | None]]:
        mine, own = KeptRows(Checkpoint(folder), Memory(room_for(most)), 1), dict[bytes, bytes | None]()
        async for some in mine.resume(0, len(log)):
            own |= some
        own |= mine.load(log[mine.position :])
        mine.loaded_to(len(log))
        return mine, own

    async def committed(*records: State) -> None:
        log.extend(records)
        await asyncio.sleep(0)
        own: Own = {key: value for key, value in records if key == META}
        mine.committed(own, sent(list(records), len(log)))

    mine, _ = await opened()
    last, current = dict[bytes, bytes](), dict[bytes, bytes]()
    taken: list[tuple[bytes, bytes]] | None = None
    rewriting: asyncio.Task[None] | None = None
    for n, (what, k, row) in enumerate(steps):
        key = b"k%d" % k
        if what == "set":
            mine.set(key, row)
            current[key] = row
        elif what == "delete" and taken is None and rewriting is None and not mine.changed:  # read, as at a restart
            log.append((key, None))
            mine.load(log[-1:])
            mine.loaded_to(len(log))
            current.pop(key, None)
            last.pop(key, None)
        elif what == "take" and taken is None:
            taken, coming = list(mine.take()), dict(current)
        elif what == "commit":
            if taken is None:
                taken, coming = list(mine.take()), dict(current)
            await committed(*taken, (META, b"%d" % n))
            taken, last = None, coming
        elif what == "rewrite" and (rewriting is None or rewriting.done()):
            rewriting = asyncio.create_task(mine.rewrite())
        elif what == "step":
            await asyncio.sleep(0)
        elif what == "restart":
            if rewriting is not None:
                rewriting.cancel()
                await asyncio.wait([rewriting])
                rewriting = None
            mine.close()
            (mine, own), current, taken = await opened(), dict(last), None
            assert own.get(META) == next((value for key, value in reversed(log) if key == META), None)
        assert {key: mine.get(key) for key in map(b"k%d".__mod__, range(10)) if mine.get(key) is not None} == current
        assert len(mine) == len(current)
    if rewriting is not None:
        rewriting.cancel()
        await asyncio.wait([rewriting])
    mine.close()


async def test_rows_leave_memory_a_lump_at_a_time_and_come_back(tmp_path: Path) -> None:
    mine = KeptRows(Checkpoint(tmp_path), Memory(room_for(64)), 1_000_000)
    for n in range(200):
        mine.set(b"k%03d" % n, b"%010d" % n)
        if n % 10 == 9:
            taken = mine.take()
            mine.committed({}, sent(list(taken), n))
    assert len(mine) == 200
    assert 60 <= mine.in_memory <= 64
    assert {mine.get(b"k%03d" % n) for n in range(200)} == {b"%010d" % n for n in range(200)}
    assert mine.reads >= 200 - 64
    mine.close()


@pytest.mark.skipif(Heap is PlainHeap, reason="no kernel was built here: no headers")
async def test_a_partition_that_is_still_gives_its_memory_to_one_that_fills(tmp_path: Path) -> None:
    memory = Memory(8 << 20)
    still, filling = (KeptRows(Checkpoint(tmp_path / name), memory, 1_000_000) for name in ("still", "filling"))
    for mine, count in ((still, 7_000), (filling, 20_000)):
        for n in range(count):
            mine.set(b"k%d" % n, bytes(1_000))
            if n % 100 == 99:
                mine.committed({}, sent(list(mine.take()), n))
    assert filling.held.size > 3 << 20
    assert still.held.reserved + filling.held.reserved < 9 << 20
    still.close()
    filling.close()


async def test_a_checkpoint_is_rewritten_when_much_of_it_is_old(tmp_path: Path) -> None:
    mine, position = KeptRows(Checkpoint(tmp_path), Memory(1 << 20), 10), 0
    while not mine.due:
        position += 4
        for k in range(3):
            mine.set(b"k%d" % k, b"%d" % position)
        mine.committed({META: b"m"}, sent([*mine.take(), (META, b"m")], position))
    assert position == 4 * 4  # 16 records, of which 12 are old: more than .75 * (4 + 10)
    await mine.rewrite()
    assert (mine.due, mine.position) == (False, position)
    mine.close()
    again = Checkpoint(tmp_path)
    assert dict(await content(again)) == {b"k0": b"16", b"k1": b"16", b"k2": b"16", META: b"m"}
    assert again.records == 4
    again.close()


async def test_a_busy_checkpoint_among_still_ones_is_due_as_if_it_were_alone(tmp_path: Path) -> None:
    memory = Memory(1 << 20)
    busy, *still = (KeptRows(Checkpoint(tmp_path / str(p)), memory, 10) for p in range(8))
    busy.set(b"k", b"row")
    while not busy.due:
        busy.committed({}, sent(list(busy.take()), 1))
        busy.set(b"k", b"row")
    assert busy._checkpoint.records == 10  # 9 are old: more than .75 * (1 + 10)
    for mine in (busy, *still):
        mine.close()


async def test_a_rewriting_that_waits_for_a_commit_is_in_nobodys_way(tmp_path: Path) -> None:
    memory = Memory(1 << 20)
    seldom, other = (KeptRows(Checkpoint(tmp_path / name), memory, 10) for name in ("seldom", "other"))
    for mine in (seldom, other):
        mine.set(b"k", b"1")
    other.committed({}, sent(list(other.take()), 1))
    waiting = asyncio.create_task(seldom.rewrite())
    async with asyncio.timeout(10):
        for _ in range(10):
            await asyncio.sleep(0)
        assert seldom._skipped == {b"k"}
        await other.rewrite()
        assert not waiting.done()
        seldom.committed({}, sent(list(seldom.take()), 1))
        await waiting
    for mine in (seldom, other):
        mine.close()


async def test_checkpoints_that_began_alike_take_turns_to_be_rewritten(tmp_path: Path) -> None:
    """So what a restore of all has to read stays the same, and is not nearly twice as much at times."""
    memory, rewritten, held = Memory(1 << 20), list[int](), list[int]()
    partitions = [KeptRows(Checkpoint(tmp_path / str(p)), memory, 1) for p in range(4)]
    for n in range(400):
        for p, mine in enumerate(partitions):
            mine.set(b"k%d" % (n % 40), b"row")
            mine.committed({}, sent(list(mine.take()), n))
            if mine.due:
                await mine.rewrite()
                rewritten.append(p)
        held.append(sum(mine._checkpoint.records for mine in partitions))
    assert sorted(rewritten[-8:-4]) == sorted(rewritten[-4:]) == [0, 1, 2, 3]
    assert max(held) <= 4 * 40 * (1 + 0.75 * 5 / 8) + 4
    assert min(held[200:]) > 4 * 40 * 1.2
    for mine in partitions:
        mine.close()


@pytest.mark.parametrize(
    ("error", "forgotten"),
    [
        (OSError("the broker is away"), 0),
        (stage.Behind("older than its offset"), 1),
        (BadRing("two commits"), 1),
        (BadBatch("a checksum"), 1),
    ],
)
async def test_only_a_state_that_does_not_fit_together_costs_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, forgotten: int
) -> None:
    settings, forget = Settings(home=tmp_path, instance="w"), Mock()
    monkeypatch.setattr(stage, "Transactions", lambda *_: AsyncMock())
    monkeypatch.setattr(stage, "offsets", AsyncMock())
    monkeypatch.setattr(stage, "restore", AsyncMock(side_effect=error))
    monkeypatch.setattr(kept.KeptRows, "forget", forget)
    with pytest.raises(type(error)):
        await stage.Stage(settings, EVENTS, USER_FEATURES, lambda p: UserFold.of(settings, p))._open([0])
    assert forget.call_count == forgotten


async def test_what_a_restore_finds_due_is_rewritten_with_no_commit_and_in_no_events_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, instance="w", checkpoint_rows=1)
    topic, count = settings.topic(USER_FEATURES), 20
    mine = KeptRows(Checkpoint.of(settings, topic, 0), Memory(1 << 20), 1)
    for n in range(count):
        mine.set(b"u", b"row")
        mine.committed({}, sent(list(mine.take()), n + 1))
    mine.close()

    class Joining(KeptRows):
        def __init__(self, *args: Any) -> None:
            assert threading.current_thread() is threading.main_thread(), "its memory is shared, and the loop's"
            super().__init__(*args)

    async def restored(_: str, __: str, targets: Mapping[int, Target]) -> int:
        for target in targets.values():
            await target.resume(0, count)
        return count

    monkeypatch.setattr(stage, "KeptRows", Joining)
    monkeypatch.setattr(stage, "Transactions", lambda *_: AsyncMock())
    monkeypatch.setattr(stage, "offsets", AsyncMock(return_value={0: Offsets(0, None)}))
    monkeypatch.setattr(stage, "restore", restored)
    line = stage.Stage(settings, EVENTS, USER_FEATURES, lambda p: UserFold.of(settings, p))
    await line._open([0])
    owner = line._owners[0]
    assert (owner.rows.due, owner.rows.get(b"u")) == (True, b"row")
    async with asyncio.timeout(30):
        while owner.rows.due:  # noqa: ASYNC110  (the file, as an operator would see it)
            await asyncio.sleep(0.01)
    await owner.stop()
    again = Checkpoint.of(settings, topic, 0)
    assert (again.records, again.position) == (1, count)
    again.close()


async def test_one_partition_of_a_worker_rewrites_at_a_time(tmp_path: Path) -> None:
    memory = Memory(1 << 20)
    mine = KeptRows(Checkpoint(tmp_path), memory, 1)
    mine.set(b"k", b"row")
    mine.committed({}, sent(list(mine.take()), 1))
    async with memory.turn:  # another's
        rewriting = asyncio.create_task(mine.rewrite())
        await asyncio.sleep(0.05)
        assert not rewriting.done()
    await rewriting
    assert (mine.get(b"k"), mine.position) == (b"row", 1)
    mine.close()


async def test_a_rewriting_leaves_nothing_due_however_much_is_the_engines_own(tmp_path: Path) -> None:
    mine = KeptRows(Checkpoint(tmp_path), Memory(1 << 20), 1)
    own: Own = {b"\0%d" % n: b"a block of the ring" for n in range(130)}
    for n in range(2):
        mine.set(b"k", b"row")
        mine.committed(own, sent([*mine.take(), *own.items()], n + 1))
    assert mine.due
    await mine.rewrite()
    assert not mine.due
    mine.close()


async def test_a_checkpoint_beyond_the_log_is_thrown_away(tmp_path: Path) -> None:
    written(tmp_path)
    mine = KeptRows(Checkpoint(tmp_path), Memory(1 << 20), 1)
    assert [own async for own in mine.resume(0, 4)] == []
    assert (mine.position, len(mine), mine.get(b"ada")) == (0, 0, None)
    mine.close()


async def test_rows_that_cannot_be_spilled_are_still_read_and_stop_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = KeptRows(Checkpoint(tmp_path), Memory(1), 1_000_000)
    monkeypatch.setattr(os, "writev", lambda file, rows: 0)
    mine.set(b"k", b"row")
    mine.committed({}, sent(list(mine.take()), 1))
    assert mine.get(b"k") == b"row"
    mine.set(b"l", b"another")
    with pytest.raises(OSError, match="No space left"):
        mine.committed({}, sent(list(mine.take()), 2))
    assert (mine.get(b"k"), mine.get(b"l")) == (b"row", b"another")
    mine.close()


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Writes of a spill wait: for the second, when the first says that one is going."""
    going, released, write = threading.Event(), threading.Event(), os.writev

    def late(file: int, rows: Sequence[bytes]) -> int:
        going.set()
        assert released.wait(30)
        return write(file, rows)

    monkeypatch.setattr(os, "writev", late)
    return going, released


def test_a_row_is_read_while_it_is_written_and_from_the_file_then(
    tmp_path: Path, held_up: tuple[threading.Event, threading.Event]
) -> None:
    going, released = held_up
    spill, rows = Spill(tmp_path), {b"%04d" % n: b"row %d" % n for n in range(2 * AT_ONCE + 1)}
    spill.put(rows)
    assert going.wait(30)
    assert spill.take(b"0007") == b"row 7"
    released.set()
    spill.begin()  # after the write
    assert spill._on_its_way == {}
    assert spill.move([b"0006", b"0007", b"1000"]) == {b"0006": b"row 6", b"1000": b"row 1000"}
    spill.begin()
    assert [spill.take(key) for key in (b"0006", b"0007", b"1000")] == [b"row 6", None, b"row 1000"]
    spill.close()


@pytest.mark.parametrize("what", ["another's put", "begin", "close"])
def test_what_comes_after_a_write_waits_for_it(
    tmp_path: Path, held_up: tuple[threading.Event, threading.Event], what: str
) -> None:
    going, released = held_up
    spill, another = Spill(tmp_path), Spill(tmp_path)
    spill.put({b"k": b"row"})
    assert going.wait(30)
    after = {"another's put": lambda: another.put({b"l": b"row"}), "begin": spill.begin, "close": spill.close}[what]
    thread = threading.Thread(target=after)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    released.set()
    thread.join(30)
    assert not thread.is_alive()
    assert spill._on_its_way == {}
    another.close()
    spill.close()


@pytest.mark.parametrize("refused", ["nothing", "open", "use"])
async def test_large_commits_go_past_the_cache_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    past, write, read, real = set[int](), os.pwrite, os.preadv, os.open
    used: list[str] = []

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & disk._DIRECT and path.name == "commits":
            if refused == "open":
                raise OSError(errno.EINVAL, "not here")
            past.add(fd := real(path, flags, mode))
            return fd
        past.discard(fd := real(path, flags, mode))
        return fd

    def pwrite(fd: int, view: memoryview, at: int) -> int:
        _refuse(fd, "write")
        return write(fd, view, at)

    def preadv(fd: int, into: list[memoryview], at: int) -> int:
        _refuse(fd, "read")
        return read(fd, into, at)

    def _refuse(fd: int, what: str) -> None:
        if fd in past:
            if refused == "use":
                raise OSError(errno.EINVAL, "not so")
            used.append(what)

    monkeypatch.setattr(disk.os, "open", opened)
    monkeypatch.setattr(disk.os, "pwrite", pwrite)
    monkeypatch.setattr(disk.os, "preadv", preadv)
    large: list[list[State]] = [[(b"%d %d" % (n, k), bytes([k]) * 900_000) for k in range(n)] for n in (1, 3, 7)]
    kept = Checkpoint(tmp_path)
    for n, rows in enumerate(large):
        append(kept, rows, 2 * n + 1)
        append(kept, FIRST, 2 * n + 2)  # a small one, in between
    kept.close()
    again = Checkpoint(tmp_path)
    assert (again.position, await content(again)) == (6, [record for rows in large for record in (*rows, *FIRST)])
    again.close()
    assert used.count("write") == (1 + 3 + 7 if refused == "nothing" else 0)
    assert used.count("read") == (3 if refused == "nothing" else 0)


async def test_a_file_that_ends_too_early_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the buffer held before may be a batch, too."""
    written(tmp_path)
    kept, read = Checkpoint(tmp_path), os.preadv
    monkeypatch.setattr(disk.os, "preadv", lambda fd, into, at: read(fd, [into[0][: disk.BLOCK]], at))
    with pytest.raises(OSError, match="ends too early"):
        await content(kept)
    kept.close()


async def test_a_file_that_was_laid_out_otherwise_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "LAYOUT", b"")
        written(tmp_path)
    kept = Checkpoint(tmp_path)
    assert (kept.position, kept.records, await content(kept)) == (0, 0, [])
    kept.close()


async def test_a_rewriting_lets_events_through_while_the_disk_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, write = KeptRows(Checkpoint(tmp_path), Memory(1 << 30), 1), os.pwrite
    for n in range(1_500):
        mine.held.put(b"k%d" % n, bytes(1_000))
    going, released = threading.Event(), threading.Event()

    def slow(fd: int, view: memoryview, at: int) -> int:
        going.set()
        assert released.wait(30)
        return write(fd, view, at)

    monkeypatch.setattr(disk.os, "pwrite", slow)
    rewriting = asyncio.create_task(mine.rewrite())
    assert await asyncio.to_thread(going.wait, 30)
    for _ in range(1_000):  # the loop runs while the write is on its way
        await asyncio.sleep(0)
    assert not rewriting.done()
    released.set()
    await rewriting
    mine.close()
    again = KeptRows(Checkpoint(tmp_path), Memory(1 << 30), 1)
    async for _ in again.resume(0, 1):
        pass
    assert len(again) == 1_500
    again.close()

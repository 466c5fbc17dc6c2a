"""The rows on disk: a mapping that keeps what it was given, and a checkpoint that is trusted only where it can be."""

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.settings import Settings
from streams.engine import checkpoint, stage
from streams.engine.checkpoint import Checkpoint, Overtaken
from streams.engine.fold import UserFold
from streams.engine.ring import BadRing
from streams.engine.rows import ROW_OVERHEAD, Memory, Rows
from streams.topics import EVENTS, USER_FEATURES

META = b"\0meta"


async def written(folder: Path) -> None:
    kept = Checkpoint(folder)
    await kept.write({b"ada": b"1", b"bob": b"2", META: b"m"}, 7)
    kept.close()


async def test_a_checkpoint_outlives_its_process(tmp_path: Path) -> None:
    await written(tmp_path)
    again = Checkpoint(tmp_path)
    assert (again.position, again.keys) == (7, 2)
    assert (again.get(b"ada"), again.get(b"eve"), list(again.own())) == (b"1", None, [(META, b"m")])
    await again.write({b"ada": None, b"eve": b"3"}, 9)
    assert (again.position, again.keys, again.get(b"ada"), again.get(b"eve")) == (9, 2, None, b"3")
    again.close()


async def test_what_another_boot_or_a_damaged_file_holds_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path / "boot")
    await written(tmp_path / "old")
    await written(tmp_path / "damaged")
    (tmp_path / "damaged" / "data.mdb").write_bytes(b"no database" * 1_000)
    boot = tmp_path / "boot_id"
    boot.write_text("another")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "BOOT", boot)
        first = Checkpoint(tmp_path / "boot")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "OLDEST_S", -1)
        second = Checkpoint(tmp_path / "old")
    for found in (first, second, Checkpoint(tmp_path / "damaged")):
        assert (found.position, found.keys, found.get(b"ada"), list(found.own())) == (0, 0, None, [])
        found.close()


async def test_a_checkpoint_that_another_process_wrote_to_is_left_alone(tmp_path: Path) -> None:
    mine = Checkpoint(tmp_path)
    await mine.write({b"ada": b"1"}, 3)
    note = msgspec.json.encode({"position": 5, "keys": 1, "written_at": 0.0, "boot": ""})
    with mine._env.begin(write=True) as other:
        other.put(checkpoint._NOTE, note)
    with pytest.raises(Overtaken):
        await mine.write({b"ada": b"2"}, 4)
    assert mine.get(b"ada") == b"1"
    mine.close()


async def test_a_disk_that_is_full_soon_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoint(tmp_path)
    await kept.write({b"ada": b"1"}, 1)
    monkeypatch.setattr(checkpoint, "SPARE_BYTES", 1 << 60)
    with pytest.raises(OSError, match="are free"):
        await kept.write({b"ada": b"2"}, 2)
    assert (kept.position, kept.get(b"ada")) == (1, b"1")
    kept.close()


async def test_a_write_that_ended_halfway_leaves_the_position_and_the_engines_records_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "STEP", 1)
    kept = Checkpoint(tmp_path)
    await kept.write({b"ada": b"1", META: b"old"}, 1)
    monkeypatch.setattr(checkpoint, "_own", None)
    with pytest.raises(TypeError):
        await kept.write({b"ada": b"2", b"bob": b"2", META: b"new"}, 2)
    monkeypatch.undo()
    kept.close()
    again = Checkpoint(tmp_path)
    assert (again.position, again.get(b"bob"), list(again.own())) == (1, b"2", [(META, b"old")])
    again.close()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 9), st.binary(min_size=1, max_size=30)),
        st.tuples(st.sampled_from(["commit", "save", "restart"]), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


@given(steps=steps, most=st.integers(0, 3))
def test_rows_on_disk_are_a_mapping_whatever_memory_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bytes]], most: int
) -> None:
    """A restart loses what is not committed; the rest comes back from the checkpoint and the log after it."""
    folder = tmp_path_factory.mktemp("rows")
    log: list[tuple[bytes, bytes]] = []

    def opened() -> Rows:
        rows = Rows(Checkpoint(folder), Memory(most * (ROW_OVERHEAD + 30)), 1)
        assert list(rows.resume(0, len(log))) == []
        for key, row in log[rows.position :]:
            rows.load(key, row)
        asyncio.run(rows.loaded_to(len(log)))
        return rows

    rows = opened()
    committed, current = dict[bytes, bytes](), dict[bytes, bytes]()
    for what, n, row in steps:
        if what == "set":
            key = b"k%d" % n
            rows.set(key, row, new=rows.get(key) is None)
            current[key] = row
        elif what == "commit":
            log += rows.take()
            rows.committed({}, len(log))
            committed = dict(current)
        elif what == "save":
            asyncio.run(rows.save())
        else:
            rows.close()
            rows, current = opened(), dict(committed)
        assert {key: rows.get(key) for key in map(b"k%d".__mod__, range(10)) if rows.get(key) is not None} == current
        assert len(rows) == len(current)
    rows.close()


@pytest.mark.parametrize(
    ("error", "forgotten"),
    [(OSError("the broker is away"), 0), (stage.Behind("older than its offset"), 1), (BadRing("two commits"), 1)],
)
async def test_only_a_state_that_does_not_fit_together_costs_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, forgotten: int
) -> None:
    settings, forget = Settings(home=tmp_path, instance="w"), Mock()
    monkeypatch.setattr(stage, "Transactions", lambda *_: AsyncMock())
    monkeypatch.setattr(stage, "offsets", AsyncMock())
    monkeypatch.setattr(stage, "restore", AsyncMock(side_effect=error))
    monkeypatch.setattr(Rows, "forget", forget)
    with pytest.raises(type(error)):
        await stage.Stage(settings, EVENTS, USER_FEATURES, lambda p: UserFold.of(settings, p))._open([0])
    assert forget.call_count == forgotten


async def test_a_checkpoint_beyond_the_log_is_thrown_away(tmp_path: Path) -> None:
    await written(tmp_path)
    rows = Rows(Checkpoint(tmp_path), Memory(1 << 20), 1)
    assert list(rows.resume(0, 6)) == []
    assert (rows.position, len(rows), rows.get(b"ada")) == (0, 0, None)
    rows.close()

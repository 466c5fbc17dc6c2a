"""The compiled batches are aiokafka's own, byte for byte; rows come out of them as they went in."""

from unittest.mock import patch

import pytest
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.struct import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine import batches, unpacking
from streams.fold.records import Own, Row, State
from streams.fold.rows import Heap

pytestmark = pytest.mark.skipif(batches.pack is None, reason="no kernel was built here: no headers")

LIMIT = 1_000
STATE = {"producer_id": 1 << 40, "producer_epoch": 7, "base_sequence": 1 << 20}
_keys = st.none() | st.binary(max_size=70)
_values = st.none() | st.binary(max_size=300) | st.integers(0, 850).map(bytes)


def built(rows: list[Row]) -> list[tuple[bytes, int]]:
    with patch.object(batches, "BATCH_BYTES", LIMIT), patch.object(batches, "time", lambda: 1_780_000_000.25):
        made = batches.batches(rows)
    for batch in made:
        batch._set_producer_state(**STATE)
    return [(bytes(batch._build()), batch.record_count()) for batch in made]


@given(st.lists(st.tuples(_keys, _values), max_size=200))
@example([(b"k", None)] * 130)  # numbers of records of one byte and of two
@example([(None, bytes(71)), (None, bytes(850))])  # exactly full
@example([(None, bytes(size)) for size in (62, 63, 64, 65, 127, 128, 900)])
def test_they_are_the_bytes_that_aiokafka_makes(rows: list[Row]) -> None:
    with patch.object(batches, "pack", None):
        expected = built(rows)
    assert built(rows) == expected
    assert sum(records for _, records in expected) == len(rows)


_partitions = st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=300) | st.binary().map(bytearray)), max_size=3)


@given(st.none() | st.text(), st.integers(-1, 1), st.lists(st.tuples(st.text(), _partitions), max_size=3))
def test_a_request_to_produce_is_the_bytes_that_aiokafka_makes(
    transactional_id: str | None, acks: int, topics: list[tuple[str, list[tuple[int, bytes | bytearray]]]]
) -> None:
    request = ProduceRequest_v7(transactional_id, acks, 20_000, topics)
    assert request.encode() == batches.encoded(request) == Struct.encode(request)


KEYS = [b"", b"a", b"b", b"\0own", bytes(70)]
_records = st.lists(st.tuples(st.sampled_from(KEYS), _values), max_size=200)


@given(_records, st.dictionaries(st.sampled_from(KEYS[:3]), st.binary()), st.data())
def test_rows_come_out_of_them_as_they_went_in_or_not_at_all(
    records: list[State], held: dict[bytes, bytes], data: st.DataObject
) -> None:
    with patch.object(batches, "BATCH_BYTES", LIMIT):
        packed = bytearray(b"".join(batches.packed(records)))
    spilled = {key: 7 for key in KEYS[:3] if key not in held}

    def filled() -> tuple[dict[bytes, bytes], dict[bytes, int], Own]:
        heap, places, own = Heap(), dict(spilled), dict[bytes, bytes | None]()
        for key, row in held.items():
            heap.put(key, row)
        unpacking.check(memoryview(packed))
        unpacking.unpack_into(memoryview(packed), heap, places, own)
        return dict(heap.rows(list(heap))), places, own

    compiled = filled()
    with patch.object(unpacking, "fill_packed", None):
        assert filled() == compiled
    newest = dict(records)
    assert compiled[0] == {
        key: row for key, row in {**held, **newest}.items() if row is not None and not key.startswith(b"\0")
    }
    assert compiled[1].keys() == spilled.keys() - newest.keys()
    assert compiled[2] == {key: row for key, row in newest.items() if key.startswith(b"\0")}
    if records:
        packed[-1 - data.draw(st.integers(0, min(40, len(packed)) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(unpacking.BadBatch):
            filled()


@pytest.mark.parametrize("wrong", [bytes(200), bytes(8) + b"\xff\xff\xff\xf4" + bytes(100), b"short"])
@pytest.mark.parametrize("by", [unpacking.fill_packed, None], ids=["compiled", "plain"])
def test_a_hole_in_a_file_is_no_batch(wrong: bytes, by: object) -> None:
    with patch.object(unpacking, "fill_packed", by), pytest.raises(unpacking.BadBatch):
        unpacking.unpack_into(memoryview(wrong), Heap(), {}, {})
    with pytest.raises(unpacking.BadBatch):
        unpacking.check(memoryview(wrong))


def test_a_row_that_no_batch_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=f"a record of {LIMIT} bytes does not fit into a batch of {LIMIT}"):
        built([(b"a", b"b"), (b"k", bytes(LIMIT))])

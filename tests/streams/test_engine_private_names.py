"""Guard: each private name of Faust and aiokafka that the engine relies on exists and still does what it did.

When one of these fails after an upgrade, read the upstream change before touching `streams.engine.transport`.
"""

import inspect
import re
from typing import Any

import aiokafka
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import fetcher
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer import message_accumulator
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7
from faust.app.base import App
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.engine.batches import PackedBatch, encoded
from streams.engine.transport import _ConsumerThread
from streams.topics import partition_of


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "_getmany", ["self", "active_partitions", "timeout"]),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "seek_to_committed", ["self"]),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (driver.AIOKafkaConsumerThread, "verify_event_path", ["self", "now", "tp"]),
        (fetcher.PartitionRecords, "_consumer_record", ["self", "tp", "record"]),
    ],
)
def test_a_method_that_we_override_has_the_shape_that_we_override(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.mark.parametrize("name", ["isolation_level", "fetch_max_wait_ms"])
def test_what_the_consumer_is_told_is_read_when_it_starts(name: str) -> None:
    assert f"{name}=self._{name}" in inspect.getsource(AIOKafkaConsumer.start)


def test_the_fetcher_looks_partition_records_up_in_its_module() -> None:
    assert "PartitionRecords(" in inspect.getsource(fetcher.Fetcher)
    assert "self._consumer_record(tp, record)" in inspect.getsource(fetcher.PartitionRecords)


def test_faust_calls_getmany_and_to_message_on_the_consumer() -> None:
    assert "self._to_message" in inspect.getsource(faust_consumer.Consumer.getmany)
    assert "self._getmany(" in inspect.getsource(faust_consumer.Consumer)


def test_faust_seeks_through_the_thread_after_a_rebalance() -> None:
    assert "self._thread.seek_to_committed()" in inspect.getsource(faust_consumer.ThreadDelegateConsumer)
    assert "self.seek_to_committed()" in inspect.getsource(faust_consumer.Consumer.perform_seek)
    assert "if offset and offset > 0" in inspect.getsource(AIOKafkaConsumer.seek_to_committed), "why we seek the rest"


def test_without_its_second_of_waiting_the_start_of_fausts_tables_is_ours() -> None:
    start = [line.strip() for line in inspect.getsource(TableManager.on_start).splitlines()]
    assert start[2:] == [
        "await self.sleep(1.0)",
        "if not self.should_stop:",
        "await self._update_channels()",
        "await self.recovery.start()",
    ]


def test_restores_are_awaited_before_the_seek_to_the_committed_offsets() -> None:
    resume = inspect.getsource(Recovery._resume_streams)
    assert resume.index("await app.on_rebalance_complete.send()") < resume.index("consumer.perform_seek()")


def test_a_revoked_partition_is_signalled_after_the_flow_was_stopped() -> None:
    revoked = inspect.getsource(App._on_partitions_revoked)
    assert revoked.index("flow_control.clear") < revoked.index("self.on_partitions_revoked.send")


def test_the_last_commit_comes_after_the_fetcher_was_stopped() -> None:
    stop = inspect.getsource(App.on_stop)
    assert stop.index("self._stop_consumer()") < stop.index("self.on_before_shutdown.send()")


def test_the_producer_asks_a_batch_for_what_packed_batches_give() -> None:
    """`_builder` in the accumulator is a packed batch of ours, or aiokafka's."""
    asked = set(re.findall(r"_builder\.(\w+)\(", inspect.getsource(message_accumulator.MessageBatch)))
    asked |= set(re.findall(r"_builder\.(\w+)\(", inspect.getsource(message_accumulator.MessageAccumulator)))
    assert asked - {"append"} <= set(vars(PackedBatch))  # only `send`, which we do not use, appends
    assert ".append(" not in inspect.getsource(message_accumulator.MessageAccumulator.add_batch)
    state = inspect.signature(BatchBuilder._set_producer_state).parameters
    assert list(state) == list(inspect.signature(PackedBatch._set_producer_state).parameters)


def test_a_request_to_produce_is_encoded_by_the_method_that_we_override() -> None:
    """Its bytes are held against aiokafka's own by `tests/laws/test_packed_batches.py`."""
    assert ProduceRequest._CLASSES[-1] is ProduceRequest_v7, "another version is asked for: override its `encode`"
    assert "request_struct.encode()" in inspect.getsource(AIOKafkaConnection.send)
    assert ProduceRequest_v7.encode is encoded


def test_topics_without_acks_are_never_committed_by_faust() -> None:
    assert "acks_enabled_for" in inspect.getsource(faust_consumer.Consumer._drain_messages)


def test_a_failed_batch_still_does_not_fail_the_commit() -> None:
    """Why every send's future is awaited. If aiokafka learns it, the wait is merely superfluous."""
    assert inspect.iscoroutinefunction(aiokafka.AIOKafkaProducer.send_batch)
    assert list(inspect.signature(BatchBuilder.append).parameters)[1:4] == ["timestamp", "key", "value"]


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_has_the_partition_that_java_clients_give_it(key: bytes, hashed: int) -> None:
    """The vectors of Kafka's own `UtilsTest.testMurmur2`."""
    assert partition_of(key, 1 << 31) == hashed & 0x7FFFFFFF
    assert partition_of(key, 4) == (hashed & 0x7FFFFFFF) % 4 == DefaultPartitioner()(key, [0, 1, 2, 3], [0, 1, 2, 3])


def test_a_position_that_is_unknown_after_a_brokers_restart_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(self: Any, now: float, tp: TP) -> None:
        raise AssertionError  # aiokafka's, in `TopicPartitionState.position`

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "verify_event_path", unknown)
    object.__new__(_ConsumerThread).verify_event_path(0.0, TP("events", 0))

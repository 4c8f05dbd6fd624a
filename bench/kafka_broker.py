"""A real Apache Kafka for tests and benchmarks: one node, KRaft, on loopback, small.

The jars come from Maven Central by `mvn dependency:copy-dependencies`, once, into a cache folder outside the
repository; they need a JDK 17. Nothing that ships imports this.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Self

VERSION: Final = "4.3.1"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "opportune" / f"kafka-{VERSION}"
FETCH_S_MAX: Final = 300
START_S_MAX: Final = 60.0

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class NoKafka(Exception):
    """No broker can be started here; the message says why."""


def jars() -> Path:
    """Folder of the jars, fetched if they are not there. Raises NoKafka."""
    if (CACHE / "complete").exists():
        return CACHE
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise NoKafka(f"no {program} on PATH, and no jars in {CACHE}")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
        pom, fetched = Path(folder) / "pom.xml", Path(folder) / "jars"
        pom.write_text(_POM)
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False)
        except subprocess.TimeoutExpired as error:
            raise NoKafka(f"mvn did not fetch Kafka {VERSION} within {FETCH_S_MAX} s") from error
        if done.returncode != 0:
            raise NoKafka(f"mvn could not fetch Kafka {VERSION}: {done.stdout[-500:]}{done.stderr[-500:]}")
        (fetched / "complete").touch()
        shutil.rmtree(CACHE, ignore_errors=True)  # half of an earlier try
        fetched.rename(CACHE)
    return CACHE


class Broker:
    """One broker over any number of lives, on one port and one folder."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("java") is None:
            raise NoKafka("no java on PATH")
        self.folder = folder
        self._jars = jars()
        self._port, controller = _free_ports(2)
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": folder / "data",
            "auto.create.topics.enable": "false",
            "default.replication.factor": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A broker that was killed may come back once its session is over.
            "broker.session.timeout.ms": 2_000,
            "broker.heartbeat.interval.ms": 500,
            "num.network.threads": 1,
            "num.io.threads": 2,
            "log.cleaner.enable": "false",
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._run("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAQ", "-c", str(self._properties))

    def start(self) -> Self:
        """Start it and return when it answers. Raises NoKafka."""
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._properties)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline_s = time.monotonic() + START_S_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                log_end = (self.folder / "broker.log").read_text(errors="replace")[-2_000:]
                self.kill()
                raise NoKafka(f"the broker did not start; its log ends with\n{log_end}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it cleanly."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _answers(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _command(self, *arguments: str) -> list[str]:
        java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return [*java, "-cp", f"{self._jars}/*", *arguments]

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise NoKafka(f"{arguments[0]} failed: {done.stdout[-500:]}{done.stderr[-500:]}")


@contextmanager
def broker() -> Iterator[str]:
    """Address of a broker that goes away, or of the one that OPPORTUNE_TEST_KAFKA names. Raises NoKafka."""
    if given := os.environ.get("OPPORTUNE_TEST_KAFKA"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="opportune-kafka-", ignore_cleanup_errors=True) as folder:
        running = Broker(Path(folder)).start()
        try:
            yield running.address
        finally:
            running.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()

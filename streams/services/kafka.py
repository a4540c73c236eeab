"""Apache Kafka as one child process: KRaft, one node, loopback only."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from pathlib import Path

from streams.errors import ServiceError
from streams.services.cache import installed
from streams.services.ports import HOST, free_port

VERSION = "4.3.1"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headwater</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
      <version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
_SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=4194304
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
"""


def install() -> Path:
    """Return the folder of Kafka's jars, bringing them from Maven Central where needed.

    :raises ServiceError: if Java or Maven is missing, or the download fails.
    """
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise ServiceError(
                f"Kafka needs {program}: apt-get install {package} "
                "(or name a running Kafka in HEADWATER_KAFKA)"
            )
    return installed("kafka", VERSION, _download)


def command(root: Path) -> tuple[str, list[str]]:
    """Prepare *root* for a new or an existing node; return its address and its command."""
    jars = str(install() / "libs" / "*")
    settings = root / "server.properties"
    if not settings.exists():
        port, controller = free_port(), free_port()
        # Under its final name only when formatted: a start that fails here can be repeated.
        draft = root / "server.properties.new"
        draft.write_text(
            _SETTINGS.format(host=HOST, port=port, controller=controller, data=root / "data")
        )
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        _run(
            [
                *("java", "-cp", jars, "kafka.tools.StorageTool"),
                # In one word: one identity of 64 begins with a dash, as an option does.
                *("format", f"--cluster-id={identity}", "-c", str(draft)),
            ],
            root,
        )
        draft.rename(settings)
    found = next(
        line for line in settings.read_text().splitlines() if line.startswith("advertised")
    )
    address = found.rpartition("//")[2]
    heap = ["-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
    return address, ["java", *heap, "-cp", jars, "kafka.Kafka", str(settings)]


def _download(folder: Path) -> None:
    (folder / "pom.xml").write_text(_POM)
    _run(
        [
            *("mvn", "-q", "-B", "dependency:copy-dependencies"),
            f"-DoutputDirectory={folder / 'libs'}",
        ],
        folder,
    )


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(
            f"{' '.join(command[:3])} failed ({done.returncode}):\n"
            + (done.stdout + done.stderr)[-2000:]
        )

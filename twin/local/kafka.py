"""A single Kafka broker (KRaft, broker and controller in one) run from its jars."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from twin.local.jars import class_path_file, java, read_class_path
from twin.local.ports import HOST

_LOG_LEVEL: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
# With a stamp per line the log can be read beside those of the other parts.
_LOG_STAMP: Final = "-Dorg.slf4j.simpleLogger.showDateTime=true"


def class_path(environ: Mapping[str, str]) -> list[str] | None:
    """Kafka's jars if they were resolved before."""
    return read_class_path(class_path_file(environ))


def properties(log_dir: Path, port: int, controller_port: int) -> str:
    """server.properties of a broker on loopback that keeps its data in `log_dir`."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"BROKER://{HOST}:{port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "log.dirs": str(log_dir),
        "num.network.threads": "2",
        "num.io.threads": "2",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # One machine, few members: nobody else is about to join.
        "group.initial.rebalance.delay.ms": "0",
        # Tests use session time-outs below the default minimum of 6 s.
        "group.min.session.timeout.ms": "1000",
        "log.segment.bytes": str(128 * 2**20),
        # 200 partitions: the default index of 10 MB each would be 4 GB of sparse files.
        "log.index.size.max.bytes": str(2**20),
        # The default of 128 MB is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def command(jvm: Sequence[str], jars: Sequence[str], main: str, *args: str) -> list[str]:
    """A Java command line over Kafka's jars."""
    return [java(), *jvm, _LOG_LEVEL, _LOG_STAMP, "-cp", ":".join(jars), main, *args]


def is_formatted(log_dir: Path) -> bool:
    """Whether `log_dir` was used by Kafka before."""
    return (log_dir / "meta.properties").is_file()


def format_command(jvm: Sequence[str], jars: Sequence[str], config: Path) -> list[str]:
    """Prepare an empty `log.dirs` of `config`."""
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return command(
        jvm,
        jars,
        "kafka.tools.StorageTool",
        "format",
        f"--cluster-id={cluster}",
        "-c",
        str(config),
    )


def server_command(jvm: Sequence[str], jars: Sequence[str], config: Path) -> list[str]:
    """Run the broker of `config`."""
    return command(jvm, jars, "kafka.Kafka", str(config))

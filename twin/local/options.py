"""What to start: the one value that describes an embedded stack."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

MqttBroker = Literal["auto", "amqtt", "mosquitto", "hivemq"]

APPLICATION: Final[Mapping[str, tuple[str, ...]]] = {
    "uplink": ("-m", "ingest", "uplink"),
    "downlink": ("-m", "ingest", "downlink"),
    "worker": ("-m", "twin", "worker"),
    "scorer": ("-m", "models", "scorer"),
    "api": ("-m", "twin", "api"),
}
"""Our processes in start order, as arguments of the Python interpreter."""

# C1 and the serial collector start fastest and need least memory. Checking the bytecode of jars that
# were checked when they were built costs a third of the start (3.2 s of CPU, 2.0 without).
FUNCTIONAL_JVM: Final = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:ActiveProcessorCount=2",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
)
# What a broker is measured with.
BENCHMARK_JVM: Final = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC")


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1; 0 = any free one."""

    api: int = 8080
    mqtt: int = 1883
    kafka: int = 9092
    redis: int = 6379
    kafka_controller: int = 0


FREE_PORTS: Final = Ports(api=0, mqtt=0, kafka=0, redis=0)


@dataclass(frozen=True, slots=True)
class External:
    """Addresses of services that run already; a part that has one is not started."""

    kafka: str | None = None
    redis: str | None = None
    mqtt: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "External":
        """Read KAFKA_BOOTSTRAP, REDIS_URL and MQTT_URLS (comma list); empty means not given."""
        urls = environ.get("MQTT_URLS", "").split(",")
        return cls(
            kafka=environ.get("KAFKA_BOOTSTRAP", "").strip() or None,
            redis=environ.get("REDIS_URL", "").strip() or None,
            mqtt=tuple(url.strip() for url in urls if url.strip()),
        )


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds until waiting is given up; a process that dies ends the wait at once."""

    download: float = 600.0
    infrastructure: float = 120.0
    application: float = 180.0
    stop: float = 15.0


@dataclass(frozen=True, slots=True)
class Options:
    """An embedded stack. `processes`: names of `APPLICATION`, () = infrastructure only.

    `env` is added to the environment of our own processes, after the addresses of the stack. `tls`: the
    broker speaks TLS and knows its clients by certificates, which are made for `cars` simulated cars.
    """

    data_dir: Path = Path(".cartwin")
    fresh: bool = False
    ports: Ports = Ports()
    mqtt: MqttBroker = "auto"
    processes: tuple[str, ...] = tuple(APPLICATION)
    tls: bool = False
    cars: int = 1
    partitions: int = 12
    env: Mapping[str, str] = field(default_factory=dict)
    external: External = External()
    deadlines: Deadlines = Deadlines()
    kafka_jvm: tuple[str, ...] = FUNCTIONAL_JVM

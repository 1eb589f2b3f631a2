"""The bridges of `cartwin bench ingest`: cartwin's uplink and its peers, how each is started.

All read the telemetry of one Mosquitto, check it, write Avro and produce it with acks=all and an
idempotent producer. Not all promise the same: see what each says of itself.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench_peers import HERE, ROOT, SOURCES, virtual_environment
from twin.wire.catalogue import SIGNALS

_SCHEMA: Final = ROOT / "twin/wire/schemas/telemetry-v1.avsc"


@dataclass(frozen=True, slots=True)
class Door:
    """What a bridge stands between in one run."""

    mqtt_port: int
    bootstrap: str
    qos: int
    run: str
    """Tells the runs apart: part of client ids."""
    health_ports: Sequence[int]
    """One for each process."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """`processes` of it share the telemetry. `start` gives command and environment of process i."""

    name: str
    about: str
    processes: int
    install: Callable[[Path], Sequence[str]]
    start: Callable[[Sequence[str], Door, int], tuple[list[str], dict[str, str]]]
    clients: Callable[[Door], list[str]]
    """MQTT client ids, whose sessions the broker keeps when the run is over."""
    has_health: bool = False
    """Says on /readyz when it is subscribed; the others print their settings then."""


def _inherited() -> dict[str, str]:
    dropped = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in dropped} | {"PYTHONUNBUFFERED": "1"}


def _uplink(workers: int) -> Bridge:
    def start(head: Sequence[str], door: Door, number: int) -> tuple[list[str], dict[str, str]]:
        told: Mapping[str, str] = {
            "KAFKA_BOOTSTRAP": door.bootstrap,
            "MQTT_URLS": f"mqtt://127.0.0.1:{door.mqtt_port}",
            "HEALTH_PORT": str(door.health_ports[number]),
            "UPLINK_WORKER": str(number),
            "UPLINK_WORKERS": str(workers),
            # The feeder's cars say in a second what others say in minutes; the limit itself is on.
            "UPLINK_VEHICLE_RATE": "100000",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }
        return [*head, "-m", "ingest", "uplink"], {**_inherited(), **told}

    shared = "" if workers == 1 else ", telemetry by $share"
    return Bridge(
        "cartwin" if workers == 1 else f"cartwin-{workers}",
        f"{workers} uplink process{'' if workers == 1 else 'es'}{shared}: PUBACK after Kafka, in order",
        workers,
        lambda _home: [sys.executable],
        start,
        lambda _door: ["cartwin-uplink-0", *(f"cartwin-uplink-0-{n}" for n in range(1, workers))],
        has_health=True,
    )


def _peer(name: str, about: str) -> Bridge:
    def clients(door: Door) -> list[str]:
        return [f"{name}-{door.run}"]

    def start(head: Sequence[str], door: Door, _number: int) -> tuple[list[str], dict[str, str]]:
        words = {
            "--mqtt-port": str(door.mqtt_port),
            "--client-id": clients(door)[0],
            "--bootstrap": door.bootstrap,
            "--qos": str(door.qos),
            "--schema": str(_SCHEMA),
            "--ranges": json.dumps({s.name: [s.low, s.high] for s in SIGNALS}),
        }
        return [*head, *(part for pair in words.items() for part in pair)], _inherited()

    script = str(SOURCES / f"{name}_bridge.py")
    return Bridge(
        name,
        about,
        1,
        lambda home: [virtual_environment(home, "ingest"), script],
        start,
        clients,
    )


BRIDGES: Final = (
    _uplink(1),
    _uplink(4),
    _peer("paho", "paho-mqtt and a Kafka producer as tutorials write it: PUBACK before Kafka"),
    _peer("aiomqtt", "aiomqtt and aiokafka: PUBACK before Kafka"),
    _peer("gmqtt", "gmqtt and confluent-kafka, tuned: PUBACK after Kafka, in order of completion"),
)
FEEDER: Final = [sys.executable, str(HERE / "mqtt_feeder.py")]

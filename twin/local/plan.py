"""Addresses of a stack, decided before anything starts, so that a taken port costs no waiting."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twin.kit.kafka import security
from twin.local import ca, probe
from twin.local.errors import LocalError
from twin.local.options import Options
from twin.local.ports import HOST, PortPicker

AUTHORITY: Final = "ca"
"""Folder in the data directory with the certificates of a broker under TLS (`ca`)."""
_MQTT_ACCESS: Final = (
    "MQTT_CA_FILE",
    "MQTT_CERT_FILE",
    "MQTT_KEY_FILE",
    "MQTT_USERNAME",
    "MQTT_PASSWORD_FILE",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each part is or will be. A port is None when the part is not started by us.

    `mqtt` is the cars' door; under TLS services have another one.
    """

    kafka: str
    kafka_port: int | None
    kafka_controller_port: int | None
    redis: str
    redis_port: int | None
    mqtt: tuple[str, ...]
    mqtt_port: int | None
    mqtt_services_port: int | None
    api_port: int | None
    health_ports: Mapping[str, int]

    @property
    def api(self) -> str | None:
        """URL of the API, None when it is not part of the stack."""
        return None if self.api_port is None else f"http://{HOST}:{self.api_port}"

    @property
    def mqtt_services(self) -> tuple[str, ...]:
        """What uplink and downlink are told as MQTT_URLS."""
        port = self.mqtt_services_port
        return self.mqtt if port is None else (f"mqtts://{HOST}:{port}",)

    def mqtt_access(self, name: str, data_dir: Path) -> dict[str, str]:
        """What process `name` shows our own broker; brokers of others: what the environment says."""
        if self.mqtt_port is None:
            return {}
        plain = dict.fromkeys(_MQTT_ACCESS, "")
        if self.mqtt_services_port is None or name not in ca.SERVICES:
            return plain
        return plain | ca.access(data_dir / AUTHORITY, name)

    @property
    def health(self) -> dict[str, str]:
        """URL of /readyz and /metrics of each of our processes; the API serves its own."""
        urls = {name: f"http://{HOST}:{port}" for name, port in self.health_ports.items()}
        return urls if self.api is None else {**urls, "api": self.api}

    def environment(self, name: str, data_dir: Path) -> dict[str, str]:
        """What process `name` is told."""
        told = {
            "KAFKA_BOOTSTRAP": self.kafka,
            "REDIS_URL": self.redis,
            "MQTT_URLS": ",".join(self.mqtt_services),
            **self.mqtt_access(name, data_dir),
            "MODEL_STORE": str(data_dir / "models"),
            "LOG_FORMAT": "json",
            "HEALTH_HOST": HOST,
            # The API answers /readyz on its own port.
            "HEALTH_PORT": str(self.health_ports.get(name, 0)),
            "PYTHONUNBUFFERED": "1",
        }
        if name == "api":
            told |= {"API_HOST": HOST, "API_PORT": str(self.api_port)}
        return told


def make(options: Options) -> Plan:
    """Claim every port. Raises `PortTaken`, or `LocalError` for an address that is none."""
    ports, external, picker = options.ports, options.external, PortPicker()
    kafka_port = controller_port = redis_port = mqtt_port = services_port = api_port = None
    if external.kafka is None:
        protocol = security().kafka_security_protocol
        if protocol != "PLAINTEXT":
            raise LocalError(
                f"KAFKA_SECURITY_PROTOCOL is {protocol}, and the Kafka that is started here speaks"
                " PLAINTEXT: name yours with KAFKA_BOOTSTRAP, or unset it."
            )
        kafka_port = picker.claim(
            ports.kafka,
            "Kafka",
            "name another with --kafka-port N (0 = any free one), or set"
            f" KAFKA_BOOTSTRAP={HOST}:{ports.kafka} to use the Kafka that runs there",
        )
        controller_port = picker.claim(
            ports.kafka_controller, "Kafka's controller", "leave the choice to us with 0"
        )
    if external.redis is None:
        redis_port = picker.claim(
            ports.redis,
            "Redis",
            "name another with --redis-port N (0 = any free one), or set"
            f" REDIS_URL=redis://{HOST}:{ports.redis}/0 to use the Redis that runs there",
        )
    if external.redis is not None:
        probe.check_redis_url(external.redis)
    for url in external.mqtt:
        probe.mqtt_address(url)
    if external.mqtt and options.tls:
        raise LocalError(
            "--tls is for the broker that is started here, and MQTT_URLS names another: unset it, or"
            " leave --tls away and name that broker's files in MQTT_CA_FILE, MQTT_CERT_FILE and"
            " MQTT_KEY_FILE."
        )
    if not external.mqtt:
        mqtt_port = picker.claim(
            ports.mqtt,
            "the MQTT broker",
            "name another with --mqtt-port N (0 = any free one), or set"
            f" MQTT_URLS=mqtt://{HOST}:{ports.mqtt} to use the broker that runs there",
        )
    scheme = "mqtt"
    if options.tls:
        services_port, scheme = picker.free(), "mqtts"
    if "api" in options.processes:
        api_port = picker.claim(
            ports.api, "the API", "name another with --api-port N (0 = any free one)"
        )
    return Plan(
        kafka=external.kafka or f"{HOST}:{kafka_port}",
        kafka_port=kafka_port,
        kafka_controller_port=controller_port,
        redis=external.redis or f"redis://{HOST}:{redis_port}/0",
        redis_port=redis_port,
        mqtt=external.mqtt or (f"{scheme}://{HOST}:{mqtt_port}",),
        mqtt_port=mqtt_port,
        mqtt_services_port=services_port,
        api_port=api_port,
        health_ports={name: picker.free() for name in options.processes if name != "api"},
    )

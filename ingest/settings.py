"""Settings of uplink and downlink: read once from the environment at the entry of the process."""

from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from ingest.access import Access
from ingest.errors import AccessUnusable
from ingest.topology import Topology
from twin.kit.mqtt_address import PORTS, Broker
from twin.kit.registry_settings import SchemaRegistry
from twin.kit.settings import Addresses, Settings
from twin.wire.codec import MAX_MESSAGE_BYTES
from twin.wire.telemetry import Validation

_ALL: Final = "all"


def parse_brokers(urls: str) -> tuple[Broker, ...]:
    """`mqtt://host:port,mqtts://..` -> brokers; raises `ValueError` with a sentence for the user."""
    brokers = tuple(_broker(url.strip()) for url in urls.split(","))
    if len({(broker.host, broker.port) for broker in brokers}) < len(brokers):
        raise ValueError("every broker may be named once only: its place is its shard number")
    return brokers


def _broker(url: str) -> Broker:
    wanted = "mqtt://host:port is accepted, mqtts:// with TLS, several separated by commas"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not in its words: they quote what stands where the port should, maybe a password.
        raise ValueError(wanted) from None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError(wanted)
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"something follows the port; {wanted}")
    return Broker(
        parts.hostname, PORTS[parts.scheme] if port is None else port, parts.scheme == "mqtts"
    )


def _usable(path: str, access: Access) -> str:
    """`path`, when a connection can be made with it; raises `ValueError` with a sentence."""
    if path:
        try:
            access.context()
            access.user()
        except AccessUnusable as error:
            raise ValueError(error.why) from None
    return path


class IngestSettings(Settings):
    """What uplink and downlink share."""

    mqtt_urls: Addresses = Field(
        default="mqtt://127.0.0.1:1883",
        description="MQTT brokers, mqtt://host:port,.. or mqtts:// for TLS; the place in the list is"
        " the shard number",
    )
    mqtt_ca_file: str = Field(
        default="",
        description="file of the authorities that signed the MQTT brokers' certificates (PEM); empty ="
        " the system's",
    )
    mqtt_cert_file: str = Field(
        default="",
        description="file of our certificate for MQTT brokers that ask for one (PEM); empty = none",
    )
    mqtt_key_file: str = Field(
        default="",
        validate_default=True,
        description="file of its key, without passphrase (PEM)",
    )
    mqtt_username: str = Field(default="", description="user at the MQTT brokers; empty = none")
    mqtt_password_file: str = Field(
        default="",
        description="file whose first line is the user's password; read at every connect",
    )

    @field_validator("mqtt_urls")
    @classmethod
    def _are_brokers(cls, urls: str) -> str:
        parse_brokers(urls)
        return urls

    @field_validator("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file")
    @classmethod
    def _mqtt_is_for_tls(cls, path: str, info: ValidationInfo) -> str:
        urls = info.data.get("mqtt_urls")
        if path and urls is not None and not any(broker.tls for broker in parse_brokers(urls)):
            raise ValueError("no broker in MQTT_URLS is spoken to in TLS; mqtts://host:port is")
        return path

    @field_validator("mqtt_ca_file")
    @classmethod
    def _mqtt_authorities(cls, path: str) -> str:
        return _usable(path, Access(ca_file=path))

    @field_validator("mqtt_key_file")
    @classmethod
    def _mqtt_key(cls, path: str, info: ValidationInfo) -> str:
        certificate = info.data.get("mqtt_cert_file")
        if certificate is None:
            return path
        if path and not certificate:
            raise ValueError("its certificate is missing: MQTT_CERT_FILE")
        if certificate and not path:
            raise ValueError("with MQTT_CERT_FILE, the file of its key is needed")
        return _usable(path, Access(cert_file=certificate, key_file=path))

    @field_validator("mqtt_password_file")
    @classmethod
    def _mqtt_password(cls, path: str, info: ValidationInfo) -> str:
        user = info.data.get("mqtt_username")
        if path and user == "":
            raise ValueError("whose password it is is missing: MQTT_USERNAME")
        return _usable(path, Access(username=user or "", password_file=path))

    @property
    def access(self) -> Access:
        """What lets us in at every broker."""
        return Access(
            self.mqtt_ca_file,
            self.mqtt_cert_file,
            self.mqtt_key_file,
            self.mqtt_username,
            self.mqtt_password_file,
        )

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The brokers in the order of their shard numbers."""
        return parse_brokers(self.mqtt_urls)


class UplinkSettings(IngestSettings, SchemaRegistry):
    """Settings of `python -m ingest uplink`."""

    validation: Validation = Field(
        default="enforce",
        description="impossible telemetry: off = not looked for, warn = kept and marked suspect,"
        " enforce = rejected",
    )
    message_max_bytes: int = Field(
        default=MAX_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="longest message of a car, bytes",
    )
    uplink_vehicle_rate: int = Field(
        default=50,
        ge=0,
        le=100_000,
        description="most messages/s of a car on one topic, over 10 s; what is above is rejected; 0 = no"
        " limit",
    )
    uplink_window: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="messages per broker on their way to Kafka before reading pauses",
    )
    uplink_ack_s: float = Field(
        default=2.0,
        ge=0.05,
        le=60.0,
        description="from one ack of a car that keeps its messages to its next, seconds",
    )
    uplink_shards: str = Field(
        default=_ALL,
        description="shards that this process reads: all, or numbers of brokers in MQTT_URLS, 0,2,..",
    )
    uplink_workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that share the telemetry of a shard; 1 keeps each car's order",
    )
    uplink_worker: int = Field(
        default=0,
        ge=0,
        le=63,
        validate_default=True,
        description="which of them this one is; 0 alone reads status, reported and outcomes",
    )
    uplink_queue_probe: int = Field(
        default=2000,
        ge=0,
        le=100_000,
        description="messages that a broker must prove to keep for who is away before we are ready;"
        " 0 = not asked",
    )

    @field_validator("uplink_shards")
    @classmethod
    def _are_shards(cls, told: str, info: ValidationInfo) -> str:
        if "mqtt_urls" in info.data:
            _shards(told, len(parse_brokers(info.data["mqtt_urls"])))
        return told

    @field_validator("uplink_worker")
    @classmethod
    def _is_one_of_them(cls, worker: int, info: ValidationInfo) -> int:
        workers = info.data.get("uplink_workers")
        if workers is not None and worker >= workers:
            raise ValueError(f"with UPLINK_WORKERS={workers}, 0 to {workers - 1} is accepted")
        return worker

    @property
    def shards(self) -> dict[int, Broker]:
        """The brokers that this process reads, by shard number."""
        brokers = self.brokers
        return {number: brokers[number] for number in _shards(self.uplink_shards, len(brokers))}

    @property
    def topology(self) -> Topology:
        """Our place among the workers of a shard."""
        return Topology(self.uplink_worker, self.uplink_workers)


def _shards(told: str, brokers: int) -> list[int]:
    """The shard numbers that are told; raises `ValueError` with a sentence for the user."""
    if told.strip() == _ALL:
        return list(range(brokers))
    parts = [part.strip() for part in told.split(",")]
    known = {str(number) for number in range(brokers)}
    if not set(parts) <= known or len(set(parts)) < len(parts):
        most = f"0 to {brokers - 1}" if brokers > 1 else "0"
        raise ValueError(f"{_ALL}, or numbers of brokers in MQTT_URLS ({most}), each once")
    return sorted(map(int, parts))


class DownlinkSettings(IngestSettings):
    """Settings of `python -m ingest downlink`."""

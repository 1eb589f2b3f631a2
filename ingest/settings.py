"""Settings of uplink and downlink: read once from the environment at the entry of the process."""

from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from twin.kit.settings import Addresses, Settings
from twin.wire.telemetry import Validation


class Broker(NamedTuple):
    """Where an MQTT broker listens. Its place in MQTT_URLS is its shard number."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"mqtt://{self.host}:{self.port}"


def parse_brokers(urls: str) -> tuple[Broker, ...]:
    """`mqtt://host:port,..` -> brokers; raises `ValueError` with a sentence for the user."""
    brokers = tuple(_broker(url.strip()) for url in urls.split(","))
    if len(set(brokers)) < len(brokers):
        raise ValueError("every broker may be named once only: its place is its shard number")
    return brokers


def _broker(url: str) -> Broker:
    wanted = "mqtt://host:port is accepted, several separated by commas"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not in its words: they quote what stands where the port should, maybe a password.
        raise ValueError(wanted) from None
    if parts.scheme != "mqtt" or not parts.hostname or "@" in parts.netloc:
        raise ValueError(wanted)
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"something follows the port; {wanted}")
    return Broker(parts.hostname, 1883 if port is None else port)


class IngestSettings(Settings):
    """What uplink and downlink share."""

    mqtt_urls: Addresses = Field(
        default="mqtt://127.0.0.1:1883",
        description="MQTT brokers, mqtt://host:port,..; the place in the list is the shard number",
    )

    @field_validator("mqtt_urls")
    @classmethod
    def _are_brokers(cls, urls: str) -> str:
        parse_brokers(urls)
        return urls

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The brokers in the order of their shard numbers."""
        return parse_brokers(self.mqtt_urls)


class UplinkSettings(IngestSettings):
    """Settings of `python -m ingest uplink`."""

    validation: Validation = Field(
        default="enforce",
        description="impossible telemetry: off = not looked for, warn = kept and marked suspect,"
        " enforce = rejected",
    )
    uplink_window: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="messages per broker on their way to Kafka before reading pauses",
    )


class DownlinkSettings(IngestSettings):
    """Settings of `python -m ingest downlink`."""

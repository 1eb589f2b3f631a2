"""The address of an MQTT broker, as MQTT_URLS names it."""

from typing import Final, NamedTuple

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""Scheme -> the port where none is named."""


class Broker(NamedTuple):
    """Where an MQTT broker listens. Its place in MQTT_URLS is its shard number."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"

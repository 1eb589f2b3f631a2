"""Telemetry of many cars over one MQTT connection a shard, at QoS 1.

MQTT 3.1.1, which every broker speaks. A car always goes to the same connection, so its order is
kept. The caller's own loop drives paho (`work`), so no second thread contends for the interpreter.
After a lost connection, what was not acknowledged is sent again. How much may be under way is the
caller's bound: paho's queue has none.
"""

import secrets
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from twin.wire.errors import CartwinError
from twin.wire.partition import partition_of
from twin.wire.topics import mqtt_topic

CONNECT_TIMEOUT_S: Final = 10.0
RECONNECT_S: Final = 1.0


class MqttUnavailable(CartwinError):
    """A broker cannot be reached, or refuses us."""


class Publisher:
    """Publishes telemetry until closed; the caller leaves at most 65,535 messages unacknowledged.

    Entering connects; raises `MqttUnavailable` naming address and reason.
    """

    def __init__(self, urls: Sequence[str], client_id: str | None = None) -> None:
        name = client_id or f"replay-{secrets.token_hex(4)}"
        self._connections = [_Connection(url, f"{name}-{shard}") for shard, url in enumerate(urls)]

    def __enter__(self) -> Self:
        try:
            for connection in self._connections:
                connection.open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def acknowledged(self) -> int:
        """Messages that a broker took."""
        return sum(connection.acknowledged for connection in self._connections)

    @property
    def faults(self) -> list[str]:
        """One sentence for each connection that is lost now."""
        return [one.fault for one in self._connections if one.fault is not None]

    def telemetry(self, vehicle_id: str, payload: bytes) -> None:
        """Send one message of one car; returns at once."""
        shard = partition_of(vehicle_id.encode(), len(self._connections))
        topic = mqtt_topic(vehicle_id, "telemetry")
        self._connections[shard].client.publish(topic, payload, qos=1)

    def work(self) -> None:
        """Send and receive what is possible now; connect again where a connection was lost."""
        for connection in self._connections:
            connection.work()

    def _close(self) -> None:
        for connection in self._connections:
            connection.client.disconnect()


class _Connection:
    """One paho client and what it learned."""

    def __init__(self, url: str, client_id: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or 1883
        except ValueError:
            port = 0
        if parts.scheme != "mqtt" or not parts.hostname or not port:
            raise MqttUnavailable(
                f"MQTT address {url!r} is not accepted: mqtt://[user:password@]host:port"
            )
        self._host, self._port = parts.hostname, port
        self._answered = False
        self._again = 0.0
        self.fault: str | None = None
        self.acknowledged = 0
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311
        )
        if parts.username:
            self.client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        # With a limit paho walks through all its messages at each acknowledgement.
        self.client.max_inflight_messages_set(0)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish

    def open(self) -> None:
        try:
            self.client.connect(self._host, self._port)
        except OSError as error:
            raise MqttUnavailable(f"no MQTT broker answers at {self._where}: {error}") from None
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not self._answered and self.fault is None:
            self.client.loop(0.1)
            if time.monotonic() > deadline:
                self.fault = f"{self._where} did not answer within {CONNECT_TIMEOUT_S:.0f} s"
        if self.fault is not None:
            raise MqttUnavailable(f"MQTT broker {self.fault}")

    def work(self) -> None:
        if self.client.socket() is not None:
            self.client.loop(0)
        elif time.monotonic() >= self._again:
            self._again = time.monotonic() + RECONNECT_S
            try:
                self.client.reconnect()
            except OSError as error:
                self.fault = f"{self._where} does not answer: {error}"

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.fault = f"{self._where} refuses us: {reason}" if reason.is_failure else None
        self._answered = True

    def _on_disconnect(self, _c: Any, _u: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.fault = self.fault or f"{self._where} is not connected: {reason}"

    def _on_publish(self, _c: Any, _u: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        self.acknowledged += 1

"""Configuration of an MQTT broker from what it must keep: text in, text out, nothing is touched.

What an uplink misses while it is away waits in its session at the broker, and brokers drop what is
beyond their limit without a word to anybody (Mosquitto and HiveMQ: 1,000 messages by default). So
the limit is rate x outage of one absent session, with its bytes.

Modes: `loopback` is for one machine, everybody may do everything; `password` and `tls` know their
clients and go by `access`. Both have two doors. Cars come in by one, and their client id is their name
(in the certificate, or the user's), so that none can take over the session of another or of a service.
Services, which have several sessions under one name, come in by a port of their own: under TLS with
certificates of another CA. Passwords do not tell a car from a service before it has said its client id,
so that port is for loopback only.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from xml.sax.saxutils import escape

from twin.local.access import acl_file
from twin.local.errors import NotConfigurable
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

Kind = Literal["mosquitto", "amqtt", "hivemq"]
Mode = Literal["loopback", "password", "tls"]
KINDS: Final[tuple[Kind, ...]] = ("mosquitto", "amqtt", "hivemq")

ACL_FILE: Final = "acl"
"""Name of `access.acl_file` beside the configuration."""
USERS_FILE: Final = "users"
"""Name of the password file beside the configuration."""
CARS_CA, SERVICES_CA = "cars-ca.pem", "services-ca.pem"
SERVER: Final = "server"
"""Stem of the broker's own certificate and key in the TLS folder."""
KEYSTORES: Final = "stores"
"""Folder beside HiveMQ's configuration that its extension makes, for the broker's eyes only."""
KEYSTORE_PASSWORD: Final = "cartwin"  # noqa: S105 - Java wants one; the file's mode is the secret
LOOPBACK: Final = "127.0.0.1"

# The uplink's check whether the queue is as deep as it should be takes 2,000 by default.
_MIN_MESSAGES: Final = 10_000
# Topic, packet id, bookkeeping of a waiting message in amqtt, roughly.
_AMQTT_OVERHEAD_BYTES: Final = 300
_HOUR_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Need:
    """What one absent session must find again: `rate` messages/s of `message_bytes` for `outage_s`."""

    rate: float
    outage_s: float
    message_bytes: int = 512

    @property
    def messages(self) -> int:
        """How many messages wait at the end of the outage; never below a small floor."""
        return max(_MIN_MESSAGES, math.ceil(self.rate * self.outage_s))

    @property
    def payload_bytes(self) -> int:
        """Their payloads in all."""
        return self.messages * self.message_bytes


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker. Paths are as the broker sees them.

    `port` is the cars' door and, in mode loopback, everybody's. `tls`: folder with the two CAs'
    certificates and the broker's own (`cartwin broker ca`). `window`: messages on their way to one
    client and not acknowledged: the uplink acknowledges after Kafka, so it wants thousands.
    `denied`: ids of vehicles that may do nothing.
    """

    need: Need
    folder: Path
    mode: Mode = "loopback"
    host: str = LOOPBACK
    port: int = 1883
    services_port: int = 8884
    tls: Path | None = None
    window: int = 4_000
    # Above the 128 KB that a message may have: the uplink rejects it with a reason, where the
    # broker would cut the connection.
    max_packet_bytes: int = 2**20
    session_expiry_s: int = 24 * _HOUR_S
    user: str | None = None
    """Mosquitto only: the account it runs under when root starts it; None = its own default."""
    trace: bool = False
    """Mosquitto only: log each packet, and so what was refused."""
    denied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.mode == "tls") != (self.tls is not None):
            raise NotConfigurable(
                "A folder of certificates belongs to mode tls, and mode tls to one."
            )
        if self.mode == "loopback" and self.host not in (LOOPBACK, "localhost", "::1"):
            raise NotConfigurable(
                f"Mode loopback lets in everybody, so it listens on {LOOPBACK} only, not on"
                f" {self.host}: use mode password or tls."
            )
        if self.denied and self.mode == "loopback":
            raise NotConfigurable(
                "Mode loopback knows nobody by name, so it cannot deny a vehicle: use mode password"
                " or tls."
            )
        try:
            for vehicle_id in self.denied:
                check_vehicle_id(vehicle_id)
        except Misaddressed as error:
            raise NotConfigurable(f"{error}.") from None
        if self.need.outage_s > self.session_expiry_s:
            raise NotConfigurable(
                f"An outage of {self.need.outage_s:g} s is longer than sessions live"
                f" ({self.session_expiry_s} s)."
            )


def files(kind: Kind, settings: BrokerSettings) -> dict[str, str]:
    """Every file of a broker's configuration by name; the first is the one it is started with."""
    if kind == "mosquitto":
        made = {"mosquitto.conf": mosquitto(settings)}
    elif kind == "hivemq":
        made = {"config.xml": hivemq(settings)}
    else:
        return {"amqtt.json": json.dumps(amqtt(settings), indent=1) + "\n"}
    if settings.mode != "loopback":
        made[ACL_FILE] = acl_file(settings.denied)
    return made


def mosquitto(settings: BrokerSettings) -> str:
    """mosquitto.conf."""
    folder, need = settings.folder, settings.need
    lines = [
        "# Made by `cartwin broker config`.",
        "per_listener_settings false",
        *_mosquitto_doors(settings),
        "",
        f"# Kept for one absent session: {need.rate:g} messages/s for {need.outage_s:g} s.",
        f"max_queued_messages {need.messages}",
        f"max_queued_bytes {need.payload_bytes}",
        f"max_inflight_messages {settings.window}",
        f"max_packet_size {settings.max_packet_bytes}",
        f"persistent_client_expiration {math.ceil(settings.session_expiry_s / _HOUR_S)}h",
        "persistence true",
        f"persistence_location {folder}/",
        "# Seconds whose messages a killed broker may forget.",
        "autosave_interval 30",
        "set_tcp_nodelay true",
        # Unlike stdout not held back in a buffer: refusals are counted in it.
        "log_dest stderr",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        *(f"log_type {kind}" for kind in ("error", "warning", "notice")),
        "connection_messages false",
    ]
    if settings.trace:
        lines.append("log_type debug")
    if settings.user is not None:
        lines.append(f"user {settings.user}")
    return "\n".join(lines) + "\n"


def amqtt(settings: BrokerSettings) -> dict[str, Any]:
    """Options of `twin.local.amqtt_broker`, which is for one machine."""
    if settings.mode != "loopback":
        raise NotConfigurable(
            f"amqtt has no mode {settings.mode}, it is for one machine: use mosquitto or hivemq."
        )
    need = settings.need
    return {
        "host": settings.host,
        "port": settings.port,
        "window": settings.window,
        "outbox_bytes": need.payload_bytes + need.messages * _AMQTT_OVERHEAD_BYTES,
        "session_expiry_s": settings.session_expiry_s,
    }


def hivemq(settings: BrokerSettings) -> str:
    """config.xml of HiveMQ CE, whose access needs our extension (`hivemq.java`)."""
    if settings.mode == "password":
        raise NotConfigurable(
            "HiveMQ CE knows no password file: use mode tls, or mosquitto for mode password."
        )
    need = settings.need
    return f"""<?xml version="1.0"?>
<!-- Made by `cartwin broker config`. -->
<hivemq>
  <listeners>
{_hivemq_doors(settings)}  </listeners>
  <mqtt>
    <!-- Kept for one absent session: {need.rate:g} messages/s for {need.outage_s:g} s. -->
    <queued-messages>
      <max-queue-size>{need.messages}</max-queue-size>
      <strategy>discard</strategy>
    </queued-messages>
    <session-expiry><max-interval>{settings.session_expiry_s}</max-interval></session-expiry>
    <packets><max-packet-size>{settings.max_packet_bytes}</max-packet-size></packets>
    <receive-maximum>
      <server-receive-maximum>{settings.window}</server-receive-maximum>
    </receive-maximum>
  </mqtt>
  <restrictions>
    <!-- Milliseconds until CONNECT. -->
    <no-connect-idle-timeout>5000</no-connect-idle-timeout>
  </restrictions>
  <persistence><mode>file</mode></persistence>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""


def _mosquitto_doors(settings: BrokerSettings) -> list[str]:
    if settings.mode == "loopback":
        return [f"listener {settings.port} {settings.host}", "allow_anonymous true"]
    access = ["allow_anonymous false", f"acl_file {settings.folder}/{ACL_FILE}"]
    if settings.tls is None:
        users = f"{settings.folder}/{USERS_FILE}"
        return [
            *access,
            f"# A car's user name is its vehicle id: mosquitto_passwd -b {users} NAME PASSWORD",
            f"password_file {users}",
            "",
            "# Cars: the client id is the user name.",
            f"listener {settings.port} {settings.host}",
            "use_username_as_clientid true",
            "",
            "# Services: one name, several sessions. Who comes by here may take any client id.",
            f"listener {settings.services_port} {LOOPBACK}",
        ]
    doors = [
        ("# Cars: the client id is the name in the certificate.", settings.port, CARS_CA),
        ("# Services: one name, several sessions.", settings.services_port, SERVICES_CA),
    ]
    lines = access
    for comment, port, authority in doors:
        lines += [
            "",
            comment,
            f"listener {port} {settings.host}",
            f"cafile {settings.tls}/{authority}",
            f"certfile {settings.tls}/{SERVER}.pem",
            f"keyfile {settings.tls}/{SERVER}.key",
            "tls_version tlsv1.2",
            "require_certificate true",
            "use_identity_as_username true",
        ]
        if authority == CARS_CA:
            lines.append("use_username_as_clientid true")
    return lines


def _hivemq_doors(settings: BrokerSettings) -> str:
    if settings.tls is None:
        return f"""    <tcp-listener>
      <port>{settings.port}</port>
      <bind-address>{escape(settings.host)}</bind-address>
    </tcp-listener>
"""
    stores = escape(str(settings.folder / KEYSTORES))
    return "".join(
        f"""    <tls-tcp-listener>
      <port>{port}</port>
      <bind-address>{escape(settings.host)}</bind-address>
      <name>{name}</name>
      <tls>
        <keystore>
          <path>{stores}/{SERVER}.p12</path>
          <password>{KEYSTORE_PASSWORD}</password>
          <private-key-password>{KEYSTORE_PASSWORD}</private-key-password>
        </keystore>
        <truststore>
          <path>{stores}/{name}.p12</path>
          <password>{KEYSTORE_PASSWORD}</password>
        </truststore>
        <protocols>
          <protocol>TLSv1.3</protocol>
          <protocol>TLSv1.2</protocol>
        </protocols>
        <client-authentication-mode>REQUIRED</client-authentication-mode>
      </tls>
    </tls-tcp-listener>
"""
        for name, port in (("cars", settings.port), ("services", settings.services_port))
    )

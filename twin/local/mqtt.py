"""The MQTT broker: Mosquitto where there is one, else amqtt in a process of its own."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twin.local.errors import LocalError, MissingProgram
from twin.local.options import MqttBroker
from twin.local.ports import HOST

# Debian installs servers where the PATH of a user does not look.
_SBIN: Final = "/usr/sbin:/usr/local/sbin"
# What a stopped uplink may leave waiting: 2,000 messages/s for 4 minutes (the default of 1,000
# messages drops the rest silently).
_MAX_QUEUED_MESSAGES: Final = 480_000
_MAX_QUEUED_BYTES: Final = 512 * 2**20
# Not yet acknowledged per client: the uplink acknowledges after Kafka did, some 10 ms later, so the
# default of 20 would cap it near 2,000 messages/s.
_MAX_INFLIGHT: Final = 4_000
# Above the 128 KB that a message may have, so that the uplink rejects it with a reason instead of
# the broker cutting the connection.
_MAX_PACKET_BYTES: Final = 2**20


def mosquitto_binary(environ: Mapping[str, str]) -> str | None:
    """Path of Mosquitto, None when it is not installed."""
    return shutil.which("mosquitto", path=f"{environ.get('PATH', '')}:{_SBIN}")


def choose(wanted: MqttBroker, environ: Mapping[str, str]) -> MqttBroker:
    """Which broker to start: "amqtt" or "mosquitto". Raises `LocalError`."""
    if wanted not in ("auto", "amqtt", "mosquitto"):
        raise LocalError(
            f"MQTT broker {wanted!r} is unknown: auto, amqtt or mosquitto is accepted."
        )
    if wanted == "auto":
        return "mosquitto" if mosquitto_binary(environ) else "amqtt"
    if wanted == "mosquitto" and mosquitto_binary(environ) is None:
        raise MissingProgram(
            "Mosquitto was asked for but is not installed (looked on PATH and in /usr/sbin):"
            " install it (apt-get install mosquitto), use --mqtt amqtt, or set MQTT_URLS to use"
            " brokers that run elsewhere."
        )
    return wanted


def mosquitto_config(directory: Path, port: int) -> str:
    """mosquitto.conf of a broker on loopback with persistent sessions and room for an outage."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {directory}/",
        "autosave_interval 30",
        "persistent_client_expiration 1d",
        f"max_queued_messages {_MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {_MAX_QUEUED_BYTES}",
        f"max_inflight_messages {_MAX_INFLIGHT}",
        f"max_packet_size {_MAX_PACKET_BYTES}",
        "set_tcp_nodelay true",
        "log_dest stdout",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    if os.geteuid() == 0:
        # Started by root it would become user `mosquitto`, who may not write to our directory.
        lines.append("user root")
    return "\n".join(lines) + "\n"


def mosquitto_command(environ: Mapping[str, str], config: Path) -> list[str]:
    """Run Mosquitto, which must be installed, in the foreground."""
    return [mosquitto_binary(environ) or "mosquitto", "-c", str(config)]


def amqtt_command(port: int) -> list[str]:
    """Run amqtt in the foreground."""
    return [sys.executable, "-m", "twin.local.amqtt_broker", HOST, str(port)]

"""The MQTT broker of a stack: Mosquitto where there is one, else amqtt; HiveMQ CE when asked for.

Each runs in a process of its own with the configuration that `broker_config` makes.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from twin.local import jars
from twin.local.broker_config import BrokerSettings, Kind, Need, files
from twin.local.errors import LocalError, MissingProgram
from twin.local.options import FUNCTIONAL_JVM, MqttBroker

# Debian installs servers where the PATH of a user does not look.
_SBIN: Final = "/usr/sbin:/usr/local/sbin"
# What a stopped uplink may leave waiting. amqtt keeps it in the memory of a Python process, and has
# up to 2,000 cars.
_NEEDS: Final[Mapping[Kind, Need]] = {
    "mosquitto": Need(rate=2_000, outage_s=240, message_bytes=1_024),
    "hivemq": Need(rate=2_000, outage_s=240, message_bytes=1_024),
    "amqtt": Need(rate=1_000, outage_s=240, message_bytes=300),
}
_DEFAULT_WINDOW: Final = 4_000
_HIVEMQ_JVM: Final = (
    *FUNCTIONAL_JVM,
    # What its libraries do, Java 25 warns of.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


class Secured(NamedTuple):
    """A broker under TLS: the port of its door for services, its folder of certificates."""

    services_port: int
    folder: Path


def mosquitto_binary(environ: Mapping[str, str]) -> str | None:
    """Path of Mosquitto, None when it is not installed."""
    return shutil.which("mosquitto", path=f"{environ.get('PATH', '')}:{_SBIN}")


def choose(wanted: MqttBroker, environ: Mapping[str, str]) -> Kind:
    """Which broker to start. Raises `LocalError`."""
    if wanted == "auto":
        return "mosquitto" if mosquitto_binary(environ) else "amqtt"
    if wanted == "mosquitto" and mosquitto_binary(environ) is None:
        raise MissingProgram(
            "Mosquitto was asked for but is not installed (looked on PATH and in /usr/sbin):"
            " install it (apt-get install mosquitto), use --mqtt amqtt, or set MQTT_URLS to use"
            " brokers that run elsewhere."
        )
    if wanted not in _NEEDS:
        raise LocalError(
            f"MQTT broker {wanted!r} is unknown: auto, amqtt, mosquitto or hivemq is accepted."
        )
    return wanted


def jars_of(kind: Kind) -> jars.Bundle | None:
    """What has to be resolved before it can run."""
    return jars.HIVEMQ if kind == "hivemq" else None


def local_settings(
    kind: Kind, folder: Path, port: int, secured: Secured | None = None
) -> BrokerSettings:
    """A broker on loopback with room for an outage of the uplink."""
    # Started by root, Mosquitto would become user `mosquitto`, who may not write to our directory.
    user = "root" if os.geteuid() == 0 else None
    made = BrokerSettings(_NEEDS[kind], folder, port=port, window=_DEFAULT_WINDOW, user=user)
    if secured is None:
        return made
    return replace(made, mode="tls", services_port=secured.services_port, tls=secured.folder)


def prepare(
    kind: Kind,
    folder: Path,
    port: int,
    environ: Mapping[str, str],
    found: Sequence[str] = (),
    secured: Secured | None = None,
) -> list[str]:
    """Write the configuration to `folder`; the command that runs the broker in the foreground.

    `found`: the class path of `jars_of(kind)`. Raises `NotConfigurable`.
    """
    return start_command(kind, local_settings(kind, folder, port, secured), environ, found)


def start_command(
    kind: Kind, settings: BrokerSettings, environ: Mapping[str, str], found: Sequence[str] = ()
) -> list[str]:
    """Write the configuration to the settings' folder; the command that runs the broker."""
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    made = files(kind, settings)
    for name, text in made.items():
        (folder / name).write_text(text)
    config = str(folder / next(iter(made)))
    if kind == "mosquitto":
        return [mosquitto_binary(environ) or "mosquitto", "-c", config]
    if kind == "amqtt":
        return [sys.executable, "-m", "twin.local.amqtt_broker", config]
    certificates = [] if settings.tls is None else [str(settings.tls)]
    main = ["HiveMqBroker", str(folder), str(settings.window), *certificates]
    return [jars.java(), *_HIVEMQ_JVM, "-cp", ":".join(found), *main]

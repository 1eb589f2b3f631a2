"""`cartwin up`: start the embedded stack in the foreground."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from twin.local import External, Options, Ports, run

PLAIN_PORT: Final = 1883
TLS_PORT: Final = 8883


class Mqtt(StrEnum):
    """Which broker to start."""

    AUTO = "auto"
    AMQTT = "amqtt"
    MOSQUITTO = "mosquitto"
    HIVEMQ = "hivemq"


class Validation(StrEnum):
    """How the uplink treats impossible values."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


def up(
    data_dir: Annotated[Path, typer.Option(help="Where data and logs are kept.")] = Path(
        ".cartwin"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away what the last run kept.")
    ] = False,
    mqtt: Annotated[
        Mqtt,
        typer.Option(
            help="MQTT broker; auto = Mosquitto where it is installed, else amqtt. hivemq = HiveMQ"
            " CE, downloaded once (110 MB)."
        ),
    ] = Mqtt.AUTO,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="The broker speaks TLS and knows cars and services by certificates, which are kept in"
            " `<data-dir>/ca`. Mosquitto or hivemq.",
        ),
    ] = False,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 8080,
    mqtt_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default 1883, with --tls 8883; 0 = any free port."),
    ] = None,
    kafka_port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 9092,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 6379,
    partitions: Annotated[
        int, typer.Option(min=1, max=256, help="Of topics about a vehicle.")
    ] = 12,
    validation: Annotated[
        Validation, typer.Option(help="Impossible values: ignored, kept and marked, or rejected.")
    ] = Validation.ENFORCE,
    json: Annotated[
        bool, typer.Option("--json", help="Print the addresses as one JSON line.")
    ] = False,
) -> None:
    """Start Kafka, Redis, an MQTT broker and all processes of cartwin; Ctrl-C ends them all.

    Servers that run already are used instead when `KAFKA_BOOTSTRAP`, `REDIS_URL` or `MQTT_URLS`
    name them. The addresses are kept in `<data-dir>/endpoints.json`, with `--tls` also the folder of
    certificates; how a car connects is printed.
    """
    options = Options(
        data_dir=data_dir,
        fresh=fresh,
        ports=Ports(
            api=api_port,
            mqtt=(TLS_PORT if tls else PLAIN_PORT) if mqtt_port is None else mqtt_port,
            kafka=kafka_port,
            redis=redis_port,
        ),
        mqtt=mqtt.value,
        tls=tls,
        partitions=partitions,
        env={"VALIDATION": validation.value},
        external=External.from_environ(os.environ),
    )
    raise typer.Exit(run(options, json, sys.stderr))

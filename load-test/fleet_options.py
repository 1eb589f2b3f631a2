"""Command-line options of the fleet beside Locust's own, checked where they are given.

Values stay text and numbers: a Locust master sends them on to its workers.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from drive import Plan
from twin.client import access
from twin.client.access import Certificates
from twin.kit.mqtt_address import Broker

LOCAL_BROKER: Final = "mqtt://127.0.0.1:1883"
VERSIONS: Final = {"3.1.1": 4, "5": 5}
"""Versions of MQTT, and the number that stands for each in CONNECT."""


def add(parser: Any) -> None:
    """Add our options to Locust's parser (event `init_command_line_parser`)."""
    group = parser.add_argument_group("cartwin fleet")

    def option(name: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        about = f"{text} (default {default})" if default != "" else text
        group.add_argument(name, type=kind, default=default, help=about)

    option("--cars-log", str, ".cartwin/cars-log", "folder of the car-side logs")
    option("--interval", above_zero, 1.0, "seconds between two messages of a car")
    option("--fleet", names, "berlin,munich", "names of the fleets that cars belong to")
    option("--cars", whole, 0, "cars a process can have, 0 = as many as --users")
    option("--seed", whole, 1, "seed of everything that is drawn")
    option("--degraded", degraded, "0", "cars of a process that degrade, 20 or 10%%")
    option("--onset-s", not_negative, 90.0, "seconds until the first car begins to degrade")
    option("--onset-spread-s", not_negative, 40.0, "seconds from the first to the last onset")
    option("--life-days", above_zero, 1.0, "component days from onset to failure, at least")
    option("--life-spread-days", not_negative, 0.7, "and at most so much more")
    option("--acceleration", above_zero, 1440.0, "component seconds in a second of the clock")
    option("--store", whole, 0, "messages a car keeps until acks cover them, 0 = it asks for none")
    option("--store-silence-s", above_zero, 10.0, "it sends again after so long without an ack")
    option("--linger-s", not_negative, 5.0, "at the end, answer commands until so long no new came")
    option("--mqtt", version, "3.1.1", "version of MQTT that cars speak, 3.1.1 or 5")
    trusted = "file of the authorities that signed the certificates of mqtts:// brokers (PEM)"
    option("--ca-file", str, "", f"{trusted}; else MQTT_CA_FILE, else the system's")
    own = (
        "folder with <vehicle id>.pem and .key of every car, as `cartwin broker ca issue` makes it"
    )
    option("--certificates", str, "", f"{own}; else MQTT_CERT_DIR")


def plan(options: argparse.Namespace, worker_index: int) -> Plan:
    """The plan of one process; raises ValueError naming the option that is not accepted."""
    cars = options.cars or options.num_users
    if not cars:
        raise ValueError("--cars is not given; a Locust worker must know how many it can have")
    return Plan(
        cars=cars,
        seed=options.seed + worker_index,
        interval_s=options.interval,
        acceleration=options.acceleration,
        degraded=_share(options.degraded, cars),
        onset_s=options.onset_s,
        onset_spread_s=options.onset_spread_s,
        life_days=options.life_days,
        life_spread_days=options.life_spread_days,
    )


def brokers(host: str | None) -> list[Broker]:
    """Every MQTT shard: from `--host`, else MQTT_URLS, else the local default. Raises ValueError."""
    given = host or os.environ.get("MQTT_URLS") or LOCAL_BROKER
    return [access.broker(url.strip()) for url in given.split(",")]


def certificates(
    options: argparse.Namespace, shards: Iterable[Broker], vehicle_ids: Iterable[str]
) -> Certificates:
    """What the cars of a process trust and show; each has its files. Raises ValueError."""
    found = Certificates(
        options.ca_file or os.environ.get("MQTT_CA_FILE", ""),
        options.certificates or os.environ.get("MQTT_CERT_DIR", ""),
    )
    if not any(shard.tls for shard in shards):
        if options.ca_file or options.certificates:
            raise ValueError("--ca-file and --certificates are for TLS: --host mqtts://host:port")
        return Certificates()
    access.context(found.ca_file)
    for vehicle_id in vehicle_ids:
        missing = found.missing(vehicle_id)
        if missing is not None:
            raise ValueError(
                f"--certificates: {missing} is not there; `cartwin broker ca issue --vehicles N`"
                " makes certificates for car-000001 to the Nth"
            )
    return found


def above_zero(text: str) -> float:
    """A number above 0."""
    return _number(text, lambda value: value > 0, "a number above 0")


def not_negative(text: str) -> float:
    """A number from 0."""
    return _number(text, lambda value: value >= 0, "a number from 0")


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; a whole number from 0 is accepted")
    return int(text)


def version(text: str) -> str:
    """A version of MQTT."""
    if text not in VERSIONS:
        raise argparse.ArgumentTypeError(f"{text!r}; {' or '.join(VERSIONS)} is accepted")
    return text


def names(text: str) -> str:
    """Names by comma, none of them empty."""
    if not all(name.strip() for name in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; names separated by comma are accepted")
    return text


def degraded(text: str) -> str:
    """A number of cars, or a share in percent."""
    try:
        _share(text, cars=10**9)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _share(text: str, cars: int) -> float:
    number, percent = text.removesuffix("%"), text.endswith("%")
    if not number.isdecimal() or int(number) > (100 if percent else cars):
        raise ValueError(
            f"--degraded {text!r}: a number of cars up to {cars}, or a share from 0% to 100%"
        )
    return int(number) / (100 if percent else cars)


def _number(text: str, good: Callable[[float], bool], accepted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value == float("inf") or not good(value):
        raise argparse.ArgumentTypeError(f"{text!r}; {accepted} is accepted")
    return value

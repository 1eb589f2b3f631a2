"""Command-line options of the fleet beside Locust's own, checked where they are given.

Values stay text and numbers: a Locust master sends them on to its workers.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from drive import Plan

LOCAL_BROKER: Final = "mqtt://127.0.0.1:1883"
MQTT_PORT: Final = 1883


def add(parser: Any) -> None:
    """Add our options to Locust's parser (event `init_command_line_parser`)."""
    group = parser.add_argument_group("cartwin fleet")

    def option(name: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        group.add_argument(name, type=kind, default=default, help=f"{text} (default {default})")

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


def brokers(host: str | None) -> list[tuple[str, int]]:
    """Host and port of every MQTT shard: from `--host`, else MQTT_URLS, else the local default.

    Raises ValueError.
    """
    given = host or os.environ.get("MQTT_URLS") or LOCAL_BROKER
    return [_broker(url.strip()) for url in given.split(",")]


def _broker(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        address, port = parts.hostname, parts.port or MQTT_PORT
    except ValueError:
        address = None
    if address is None or parts.scheme != "mqtt" or parts.path:
        raise ValueError(f"MQTT broker {url!r} is not accepted: mqtt://host:port, several by comma")
    return address, port


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

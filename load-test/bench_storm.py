"""All cars of a shard connect, lose their connections, and connect again: what the door makes of it.

Part of `cartwin bench ingest`. One Mosquitto, one uplink; births and wills are counted in the topic
`presence`. Connected means that the broker has acknowledged the birth.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from bench_broker import Broker
from bench_peers import HERE

PRESENCE: Final = "presence"
LEAST_PER_S: Final = 2_000.0
"""Connections a second."""
_DEADLINE_S: Final = 120.0
_LOOK_S: Final = 0.02


class StormFailed(Exception):
    """It gave no figures; the message is one sentence."""


def storm(broker: Broker, mqtt_port: int, cars: int, alive: Callable[[], None]) -> dict[str, Any]:
    """Two storms with a cut between them. `alive` raises when the uplink has ended."""
    figures: dict[str, Any] = {"cars": cars}
    records = 0
    for name in ("first", "again"):
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(HERE / "mqtt_storm.py"), f"--port={mqtt_port}", f"--cars={cars}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            begun = time.monotonic()
            told = json.loads(child.stdout.readline() or "{}")
            if told.get("connected") != cars:
                raise StormFailed(f"{told.get('connected', 0)} of {cars} cars were connected")
            records += cars
            _until(broker, records, alive, "births")
            births_s = time.monotonic() - begun
            cut = time.monotonic()
            child.stdin.write("\n")
            child.stdin.flush()
            records += cars
            _until(broker, records, alive, "wills")
            figures[name] = {
                "connects_per_s": round(cars / told["s"]),
                "births_in_kafka_s": round(births_s, 2),
                "wills_in_kafka_s": round(time.monotonic() - cut, 2),
            }
        finally:
            child.kill()
            child.communicate()
    return figures


def _until(broker: Broker, records: int, alive: Callable[[], None], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while (found := broker.end(PRESENCE)) < records:
        alive()
        if time.monotonic() > deadline:
            raise StormFailed(
                f"{records - found} {what} are not in Kafka after {_DEADLINE_S:.0f} s"
            )
        time.sleep(_LOOK_S)

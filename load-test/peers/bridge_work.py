"""The work of every bridge peer: a car's JSON to framed Avro, checked, with the libraries people use.

json or orjson -> ranges of the schema's signals -> fastavro, in Confluent framing.
"""

import argparse
import io
import json
import math
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import fastavro

TOPIC: Final = "telemetry"
FILTER: Final = "vehicles/+/telemetry"
PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "queue.buffering.max.messages": 200_000,
}
_FRAME: Final = struct.pack(">bI", 0, 1)


Headers = list[tuple[str, str | bytes | None]]


class Unfit(Exception):
    """A message that is not telemetry of its car."""


def options(description: str | None) -> argparse.Namespace:
    """What the bench tells a peer."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--qos", type=int, choices=(0, 1), required=True)
    parser.add_argument("--schema", required=True, help="Avro schema of a telemetry record")
    parser.add_argument("--ranges", required=True, help="JSON: signal -> [low, high]")
    return parser.parse_args()


def converter(
    told: argparse.Namespace, loads: Callable[[bytes], Any] = json.loads
) -> Callable[[str, bytes], tuple[bytes, bytes, Headers]]:
    """MQTT topic and payload -> key, value and headers of the Kafka record; raises `Unfit`."""
    with open(told.schema, encoding="utf-8") as file:
        schema = fastavro.parse_schema(json.load(file))
    ranges: dict[str, list[float]] = json.loads(told.ranges)

    def convert(topic: str, payload: bytes) -> tuple[bytes, bytes, Headers]:
        vehicle_id = topic.split("/")[1]
        fields = loads(payload)
        for name, value in fields.items():
            bounds = ranges.get(name)
            if bounds is not None and not (
                isinstance(value, (int, float))
                and math.isfinite(value)
                and bounds[0] <= value <= bounds[1]
            ):
                raise Unfit(f"{name} is {value!r}")
        record = {**fields, "vehicle_id": vehicle_id, "assigned": False, "suspect": []}
        out = io.BytesIO(_FRAME)
        out.seek(len(_FRAME))
        fastavro.schemaless_writer(out, schema, record)
        headers: Headers = [
            ("ingested-at", b"%d" % (time.time_ns() // 1_000_000)),
            ("content-type", b"avro/binary"),
        ]
        return vehicle_id.encode(), out.getvalue(), headers

    return convert

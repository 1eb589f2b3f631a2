"""Avro schemas of telemetry: fixed files in the package, one per version, never edited.

`schemas/ids.json` maps the Confluent schema id to a file; `python -m twin.wire.schema` prints the
schema that the catalogue asks for, so a test can hold file and catalogue against each other.
"""

import json
from importlib.resources import files
from typing import Any, Final

from fastavro import parse_schema

from twin.wire.catalogue import SIGNALS

CURRENT_ID: Final = 1


def build() -> dict[str, Any]:
    """The Avro record that today's catalogue asks for."""
    head = [
        {"name": "vehicle_id", "type": "string"},
        {"name": "event_time", "type": "long", "doc": "ms since 1970, the car's clock"},
        {"name": "session", "type": "long", "doc": "connect time of the car's MQTT session, ms"},
        {"name": "sequence", "type": "long", "doc": "message number within the session"},
        {
            "name": "assigned",
            "type": "boolean",
            "default": False,
            "doc": "time or number by the bridge",
        },
        {
            "name": "suspect",
            "type": {"type": "array", "items": "string"},
            "default": [],
            "doc": "signals with an impossible value",
        },
    ]
    signals = [
        {
            "name": s.name,
            "type": ["null", s.type],
            "default": None,
            "doc": f"{s.unit}; {s.low:g}..{s.high:g}; {s.vss}",
        }
        for s in SIGNALS
    ]
    return {"type": "record", "name": "Telemetry", "namespace": "cartwin", "fields": head + signals}


def load() -> dict[int, dict[str, Any]]:
    """All known schemas, parsed, by the package's Confluent id."""
    return {number: parse(text) for number, text in texts().items()}


def texts() -> dict[int, str]:
    """All known schemas as JSON, by the package's Confluent id."""
    folder = files("twin.wire") / "schemas"
    return {number: (folder / f"{name}.avsc").read_text() for name, number in names().items()}


def names() -> dict[str, int]:
    """The package's Confluent id of each known schema by its name, as `telemetry-v1`."""
    known = json.loads((files("twin.wire") / "schemas" / "ids.json").read_text())
    return {file.removesuffix(".avsc"): int(number) for number, file in known.items()}


def parse(text: str) -> dict[str, Any]:
    """A schema as fastavro reads with it; what it raises for one that is none is fastavro's."""
    return parse_schema(json.loads(text))  # type: ignore[return-value]


if __name__ == "__main__":
    print(json.dumps(build(), indent=1))  # noqa: T201 - a command's output

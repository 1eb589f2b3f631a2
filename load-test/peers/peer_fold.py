"""What the Python peers compute: Avro to fields, fields into a state by event time per signal. Pure.

The state is one JSON object a vehicle, about 1 KB; a value replaces another only if its
(event_time, session, sequence, value bytes) is greater:

    {"vehicle_id": .., "revision": n, "reported": {signal: [value, event_time, session, sequence]}}

fastavro is the fastest widely used reader of Avro. Nothing of cartwin is imported: a peer is a user
of its framework and of the schema file.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader

_FILE: Final = Path(__file__).resolve().parents[2] / "twin/wire/schemas/telemetry-v1.avsc"
_SCHEMA: Final = parse_schema(json.loads(_FILE.read_bytes()))
_FRAME: Final = 5
"""Bytes before the Avro body: 0x00 and the schema id (Confluent framing)."""
_bytes = struct.Struct(">d").pack


def decode(value: bytes) -> dict[str, Any]:
    """All fields of a telemetry record; None = the car has no such signal."""
    fields: dict[str, Any] = schemaless_reader(io.BytesIO(value[_FRAME:]), _SCHEMA, None)  # type: ignore[assignment]
    return fields


def fold(state: dict[str, Any] | None, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The state with the newer values written in place; None when none was newer.

    `state` is None for a new vehicle. Consumes `fields`.
    """
    vehicle_id = fields.pop("vehicle_id")
    time, session, sequence = (
        fields.pop("event_time"),
        fields.pop("session"),
        fields.pop("sequence"),
    )
    del fields["assigned"], fields["suspect"]
    if state is None:
        state = {"vehicle_id": vehicle_id, "revision": 0, "reported": {}}
    reported = state["reported"]
    changed = False
    for name, value in fields.items():
        if value is None:
            continue
        old = reported.get(name)
        if (
            old is None
            or time > old[1]
            or (
                time == old[1]
                and (session, sequence, _bytes(value)) > (old[2], old[3], _bytes(old[0]))
            )
        ):
            reported[name] = [value, time, session, sequence]
            changed = True
    if not changed:
        return None
    state["revision"] += 1
    return state

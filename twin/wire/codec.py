"""Telemetry to and from bytes; JSON of all other records.

On Kafka telemetry is Avro in Confluent framing: 0x00, schema id (4 bytes, big-endian), body
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html).
From cars the first byte tells: `{` is JSON, 0x00 is framed Avro; plain Avro only with the MQTT 5
content type `avro/binary`.
"""

import io
import struct
from typing import Any, Final

import orjson
from fastavro import schemaless_reader

from twin.wire import avro_writer, schema
from twin.wire.errors import Malformed, TooLarge, UnknownSchema
from twin.wire.telemetry import Telemetry, Validation, from_fields

MAX_MESSAGE_BYTES: Final = 128 * 1024
AVRO_BINARY: Final = "avro/binary"
JSON: Final = "application/json"

_SCHEMAS = schema.load()
_CURRENT = _SCHEMAS[schema.CURRENT_ID]
_FRAME = struct.Struct(">bI")
_HEAD = _FRAME.pack(0, schema.CURRENT_ID)
_HEADER_FIELDS = tuple(name for name, _ in avro_writer.HEADER)
_write = avro_writer.writer(_CURRENT)


def encode_telemetry(telemetry: Telemetry) -> bytes:
    """Framed Avro. The record must have passed `telemetry.from_fields` (types fit the schema)."""
    return _HEAD + _write(telemetry)


def decode_telemetry(data: bytes) -> Telemetry:
    """The record behind framed Avro as the uplink wrote it. Raises `Malformed`, `UnknownSchema`."""
    fields = _framed(data)
    try:
        vehicle_id, event_time, session, sequence, assigned, suspect = (
            fields.pop(name) for name in _HEADER_FIELDS
        )
    except KeyError as error:
        raise Malformed(f"no field {error} in the record", reason="malformed_avro") from error
    return Telemetry(
        vehicle_id,
        event_time,
        session,
        sequence,
        {name: value for name, value in fields.items() if value is not None},
        assigned,
        tuple(suspect),
    )


def read_payload(
    payload: bytes,
    *,
    vehicle_id: str,
    ingested_at: int,
    counter: int,
    mode: Validation = "enforce",
    content_type: str | None = None,
) -> Telemetry:
    """A car's telemetry payload in any accepted form, checked. Raises a `WireError`."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} is accepted")
    if content_type == AVRO_BINARY and payload[:1] != b"\0":
        fields = _avro(payload, _CURRENT)
    elif payload[:1] == b"\0":
        fields = _framed(payload)
    elif content_type in (None, "", JSON):
        fields = parse_object(payload)
    else:
        raise UnknownSchema(
            f"content type {content_type[:60]!r} is not accepted: {JSON}, {AVRO_BINARY} or none",
            reason="unknown_content_type",
        )
    if payload[:1] != b"{":
        # What only the bridge may say is not taken from a car.
        for name in ("assigned", "suspect"):
            fields.pop(name, None)
    return from_fields(
        fields, vehicle_id=vehicle_id, ingested_at=ingested_at, counter=counter, mode=mode
    )


def parse_object(payload: bytes) -> dict[str, Any]:
    """A JSON object; anything else raises `Malformed`."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} is accepted")
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise Malformed(f"a JSON object is accepted, not {type(value).__name__}")
    return value


dump = orjson.dumps
"""Any record except telemetry as JSON bytes."""


def _framed(data: bytes) -> dict[str, Any]:
    if len(data) < _FRAME.size or data[0] != 0:
        raise Malformed(
            f"{len(data)} bytes beginning {data[:5].hex()!r} are no framed Avro",
            reason="malformed_avro",
        )
    number = _FRAME.unpack_from(data)[1]
    known = _SCHEMAS.get(number)
    if known is None:
        raise UnknownSchema(f"schema id {number} is not known (known: {sorted(_SCHEMAS)})")
    return _avro(data[_FRAME.size :], known)


def _avro(body: bytes, known: dict[str, Any]) -> dict[str, Any]:
    source = io.BytesIO(body)
    try:
        fields: dict[str, Any] = schemaless_reader(source, known, None)  # type: ignore[assignment]
    except Exception as error:  # fastavro raises many unrelated types on bad bytes
        raise Malformed(
            f"not Avro of this schema: {error!r:.120}", reason="malformed_avro"
        ) from error
    if source.read(1):
        raise Malformed("bytes are left behind the Avro record", reason="malformed_avro")
    return fields

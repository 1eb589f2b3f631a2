"""Telemetry to and from bytes; JSON of all other records.

On Kafka telemetry is Avro in Confluent framing: 0x00, schema id (4 bytes, big-endian), body
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html).
From cars the first byte tells: `{` is JSON, 0x00 is framed Avro; plain Avro only with the MQTT 5
content type `avro/binary`.

The ids of the package (`schemas/ids.json`) are always read. A process that uses a schema registry says
once, at its start, which ids the same schemas have there (`use_ids`). Only records of Kafka may make it
look for an id: what comes from a car never makes anybody ask.
"""

import io
import math
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NoReturn

import orjson
from fastavro import schemaless_reader

from twin.native.intake import Intake
from twin.native.telemetry import Reader
from twin.wire import avro_writer, schema
from twin.wire.catalogue import BY_NAME
from twin.wire.errors import Invalid, Malformed, Misaddressed, TooLarge, UnknownSchema
from twin.wire.telemetry import CLOCK_AHEAD_MS, Sample, Telemetry, Validation, from_fields

MAX_MESSAGE_BYTES: Final = 128 * 1024
AVRO_BINARY: Final = "avro/binary"
JSON: Final = "application/json"

_SCHEMAS = schema.load()
_CURRENT = _SCHEMAS[schema.CURRENT_ID]
_FRAME = struct.Struct(">bI")
_HEAD = _FRAME.pack(0, schema.CURRENT_ID)
_write = avro_writer.writer(_CURRENT)
_READERS = {number: Reader(avro_writer.signals_of(known)) for number, known in _SCHEMAS.items()}
_CURRENT_READER = _READERS[schema.CURRENT_ID]
_PACKAGE: Final = frozenset(_SCHEMAS)

_find: Callable[[int], Reader]


def use_ids(
    ids: Mapping[int, int], current: int | None = None, find: Callable[[int], Reader] | None = None
) -> None:
    """Besides the package's ids, read `ids` (id -> the package's id of the same schema); write `current`.

    For a process's start, before anything is read or written; it replaces what was said before.
    `current`: one of `ids`, of the package's current schema; None = the package's. `find`: the reader of
    an id that is not among these, or raises `UnknownSchema`; None = such are unknown. Raises
    `ValueError`, and changes nothing, when an id means another schema in the package.
    """
    global _HEAD, _find  # noqa: PLW0603 - once at the start; a look into an object costs every message
    for number, own in ids.items():
        if own not in _PACKAGE or (number in _PACKAGE and number != own):
            raise ValueError(
                f"schema id {number} is the package's id of another schema than {own}; its ids are"
                f" {sorted(_PACKAGE)}"
            )
    written = schema.CURRENT_ID if current is None else current
    if {**ids, schema.CURRENT_ID: schema.CURRENT_ID}.get(written) != schema.CURRENT_ID:
        raise ValueError(f"schema id {written} is not that of the current schema")
    for number in _SCHEMAS.keys() - _PACKAGE:
        del _SCHEMAS[number], _READERS[number]
    for number, own in ids.items():
        _SCHEMAS[number], _READERS[number] = _SCHEMAS[own], _READERS[own]
    _HEAD = _FRAME.pack(0, written)
    _find = find or _unknown
    intake.cache_clear()


def reader_of(text: str) -> Reader:
    """The reader of records of this Avro schema (JSON). Raises `UnknownSchema` with a sentence."""
    try:
        signals = avro_writer.signals_of(schema.parse(text))
    except Exception as error:  # fastavro raises many unrelated types on what is no schema
        raise UnknownSchema(f"it is none of telemetry: {error!r:.200}") from error
    strange = [
        name
        for name, is_float in signals
        if name not in BY_NAME or is_float != (BY_NAME[name].type == "float")
    ]
    if strange or len(dict(signals)) < len(signals):
        raise UnknownSchema(
            f"this version does not know its signals {', '.join(strange)[:200]}, or as another type,"
            " or one is there twice"
        )
    return Reader(signals)


def encode_telemetry(telemetry: Telemetry) -> bytes:
    """Framed Avro. The record must have passed `telemetry.from_fields` (types fit the schema)."""
    return _HEAD + _write(telemetry)


def decode_telemetry(data: bytes) -> Telemetry:
    """The record behind framed Avro as the uplink wrote it. Raises `Malformed`, `UnknownSchema`."""
    sample = _decode(data)
    return Telemetry(
        sample.vehicle_id,
        sample.event_time,
        sample.session,
        sample.sequence,
        dict(zip(sample.names, sample.values, strict=True)),
        sample.assigned,
        sample.suspect,
    )


def decode_sample(data: bytes, vehicle_id: str) -> Sample:
    """The record of `vehicle_id` (a checked id), fit to be folded into a twin.

    Raises `Malformed`, `UnknownSchema`; `Misaddressed` when it is another vehicle's; `Invalid` when
    a time or number is negative or a value is not finite. No uplink writes such.
    """
    sample = _decode(data, vehicle_id)
    if sample.vehicle_id != vehicle_id:
        raise Misaddressed(
            f"vehicle_id {sample.vehicle_id[:80]!r} in the record is not its key {vehicle_id!r}"
        )
    if sample.plain:
        return sample
    if sample.event_time < 0 or sample.session < 0 or sample.sequence < 0:
        raise Invalid(
            f"event_time {sample.event_time}, session {sample.session}, sequence"
            f" {sample.sequence}: integers from 0 are accepted",
            reason="out_of_range",
        )
    raise Invalid("a signal is infinite or no number; finite numbers are accepted")


@cache
def intake(mode: Validation) -> Intake:
    """What takes an ordinary car's JSON straight to framed Avro; `read_payload` is for all else."""
    return Intake(
        _HEAD,
        [
            (name, is_float, -math.inf, math.inf)
            if mode == "off"
            else (name, is_float, BY_NAME[name].low, BY_NAME[name].high)
            for name, is_float in avro_writer.signals_of(_CURRENT)
        ],
        CLOCK_AHEAD_MS,
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


def _decode(data: bytes, vehicle_id: str | None = None) -> Sample:
    reader = _CURRENT_READER if data.startswith(_HEAD) else _reader(data)
    try:
        return reader.read(data, _FRAME.size, vehicle_id)
    except ValueError as error:
        raise Malformed(f"not Avro of this schema: {error}", reason="malformed_avro") from error


def _framed(data: bytes) -> dict[str, Any]:
    number = _schema_id(data)
    if number not in _SCHEMAS:
        _unknown(number)
    return _avro(data[_FRAME.size :], _SCHEMAS[number])


def _reader(data: bytes) -> Reader:
    number = _schema_id(data)
    return _READERS.get(number) or _find(number)


def _schema_id(data: bytes) -> int:
    if len(data) < _FRAME.size or data[0] != 0:
        raise Malformed(
            f"{len(data)} bytes beginning {data[:5].hex()!r} are no framed Avro",
            reason="malformed_avro",
        )
    number: int = _FRAME.unpack_from(data)[1]
    return number


def _unknown(number: int) -> NoReturn:
    raise UnknownSchema(f"schema id {number} is not known (known: {sorted(_SCHEMAS)})")


_find = _unknown


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

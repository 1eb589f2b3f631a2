"""Kafka records of the twin's input topics, read and checked: bytes in, typed inputs out.

    (topic, key, value) -> read -> Sample | PresenceInput | .. -> apply

One bad record must not stop a partition: whatever the bytes are, `read` returns an input or raises a
`WireError` with a public reason, and the shell sends the record to `rejected`. Of a request only the
envelope is judged here; what its body asks is judged by the owner, who can answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from twin.effects import DeadlineOf
from twin.fields import DEADLINE, FIELDS, check
from twin.native.telemetry import id_of_key
from twin.wire import topics
from twin.wire.codec import decode_sample, parse_object
from twin.wire.errors import Malformed, Misaddressed
from twin.wire.ids import RESERVED, check_vehicle_id, vehicle_of
from twin.wire.records import (
    Delivery,
    Outcome,
    Presence,
    Reported,
    Request,
    Score,
)
from twin.wire.telemetry import Sample


@dataclass(frozen=True, slots=True)
class PresenceInput:
    """Topic `presence`."""

    vehicle_id: str
    record: Presence


@dataclass(frozen=True, slots=True)
class ReportedInput:
    """Topic `reported`."""

    vehicle_id: str
    record: Reported


@dataclass(frozen=True, slots=True)
class OutcomeInput:
    """Topic `outcomes`; the command id is one of this vehicle."""

    vehicle_id: str
    record: Outcome


@dataclass(frozen=True, slots=True)
class DeliveryInput:
    """Topic `deliveries`."""

    vehicle_id: str
    record: Delivery


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """Topic `scores`."""

    vehicle_id: str
    record: Score


@dataclass(frozen=True, slots=True)
class RequestInput:
    """Topic `requests`, asked by somebody who gets a reply. `body` is not checked yet."""

    vehicle_id: str
    record: Request


@dataclass(frozen=True, slots=True)
class DeadlineInput:
    """Topic `requests`, kind deadline: `due` in ms."""

    vehicle_id: str
    of: DeadlineOf
    ref: str
    due: int


Input = (
    Sample
    | PresenceInput
    | ReportedInput
    | OutcomeInput
    | DeliveryInput
    | ScoreInput
    | RequestInput
    | DeadlineInput
)


def read(topic: str, key: bytes | None, value: bytes | None) -> Input:
    """A record of an input topic. Raises a `WireError` naming what is wrong and what is accepted."""
    vehicle_id = _vehicle_of_key(key)
    if value is None:
        raise Malformed(f"no value on topic {topic}; a record is accepted", reason="empty")
    if topic == topics.TELEMETRY:
        return decode_sample(value, vehicle_id)
    make = _READERS.get(topic)
    if make is None:
        raise Misaddressed(
            f"topic {topic[:120]!r} is no input of a twin: {', '.join([topics.TELEMETRY, *_READERS])}",
            reason="unknown_topic",
        )
    fields = parse_object(value)
    claimed = fields.get("vehicle_id")
    if claimed != vehicle_id:
        raise Misaddressed(
            f"vehicle_id {str(claimed)[:80]!r} in the record is not its key {vehicle_id!r}"
        )
    return make(vehicle_id, fields)


def _vehicle_of_key(key: bytes | None) -> str:
    vehicle_id = None if key is None else id_of_key(key)
    if vehicle_id is not None and vehicle_id not in RESERVED:
        return vehicle_id
    try:
        return check_vehicle_id(None if key is None else key.decode("ascii"))
    except UnicodeDecodeError:
        return check_vehicle_id(repr(key))


def _record(topic: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return check(fields, FIELDS[topic], f"a record on {topic}")


def _presence(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    return PresenceInput(vehicle_id, cast(Presence, _record(topics.PRESENCE, fields)))


def _reported(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    return ReportedInput(vehicle_id, cast(Reported, _record(topics.REPORTED, fields)))


def _outcome(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    record = cast(Outcome, _record(topics.OUTCOMES, fields))
    if vehicle_of(record["command_id"]) != vehicle_id:
        raise Misaddressed(
            f"command {record['command_id'][:100]!r} is not one of vehicle {vehicle_id!r}"
        )
    return OutcomeInput(vehicle_id, record)


def _delivery(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    return DeliveryInput(vehicle_id, cast(Delivery, _record(topics.DELIVERIES, fields)))


def _score(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    return ScoreInput(vehicle_id, cast(Score, _record(topics.SCORES, fields)))


def _request(vehicle_id: str, fields: Mapping[str, Any]) -> Input:
    record = cast(Request, _record(topics.REQUESTS, fields))
    if record["kind"] != "deadline":
        return RequestInput(vehicle_id, record)
    body = check(record["body"], DEADLINE, "a deadline")
    return DeadlineInput(vehicle_id, body["of"], body["ref"], body["due"])


_READERS: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Input]]] = {
    topics.PRESENCE: _presence,
    topics.REPORTED: _reported,
    topics.OUTCOMES: _outcome,
    topics.DELIVERIES: _delivery,
    topics.SCORES: _score,
    topics.REQUESTS: _request,
}

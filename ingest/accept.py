"""One MQTT message -> one Kafka record: accepted, or rejected with a reason. Pure, time is given.

Called by the uplink for every message, in the order of receipt. Never raises for bad input:
whatever a car sends becomes a record, for the broker may forget a message only when Kafka has it.
One thing is no message: an empty status (`clears_status`), by which whoever sends it tells the broker to
forget the one that it retains. The uplink counts it and keeps nothing.
"""

import re
from typing import Any, Final, NamedTuple

from ingest import shapes
from ingest.packets import Publish
from ingest.rate import BURST_S, RateLimit
from ingest.rejected import Record, rejection
from twin.wire import codec, topics
from twin.wire.errors import (
    Invalid,
    Misaddressed,
    Reason,
    TooLarge,
    TooMany,
    UnknownSchema,
    WireError,
)
from twin.wire.rejected import Headers
from twin.wire.telemetry import Validation
from twin.wire.topics import Kind

_TOPICS: Final[dict[Kind, str]] = {
    "telemetry": topics.TELEMETRY,
    "status": topics.PRESENCE,
    "reported": topics.REPORTED,
    "outcomes": topics.OUTCOMES,
}
_AVRO: Final = codec.AVRO_BINARY.encode()
_JSON: Final = codec.JSON.encode()
_FIRST: Final[Headers] = []
# W3C Trace Context: version 00. Another text is no trace and is ignored, as that standard says.
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Accepted(NamedTuple):
    """A record for Kafka. `kind` is "unknown" where the topic does not tell it.

    `reason` says why when it was not accepted; `suspect` that it has an impossible value.
    """

    record: Record
    kind: str
    reason: Reason | None = None
    suspect: bool = False


def clears_status(message: Publish) -> bool:
    """Whether it is an empty status, which says nothing of the car. Brokers hand it on to whoever is
    subscribed, without the mark that it was about what they retain.
    """
    if message.payload or message.cut:
        return False
    try:
        return topics.read_mqtt_topic(message.topic)[0] == "status"
    except Misaddressed:
        return False


def accept(
    message: Publish,
    *,
    shard: int,
    ingested_at: int,
    counter: int,
    mode: Validation,
    max_bytes: int = codec.MAX_MESSAGE_BYTES,
    limit: RateLimit | None = None,
    backlog: bool = False,
    sharers: int = 1,
    before: Headers = _FIRST,
) -> Accepted:
    """Judge a message that arrived at `ingested_at` (ms) from the broker number `shard`.

    `counter` becomes the sequence of telemetry that has none. `max_bytes`: of the payload. `backlog`: it
    may have waited at the broker. `sharers`: processes that telemetry is dealt out to. `before`: of a
    message that is driven again, the headers that its rejection would have to keep.
    """
    kind: Kind | None = None
    vehicle_id: str | None = None
    try:
        try:
            kind, vehicle_id = topics.read_mqtt_topic(message.topic)
        except WireError:
            # One bucket for them all, under the name that no topic has: there is no end of their names.
            if limit is None or limit.admit("", ingested_at, backlog=backlog, sharers=sharers):
                raise
            raise TooMany(
                f"more than {limit.per_s:g} messages/s come on topics of no vehicle, taken over {BURST_S}"
                f" s, one of them on {message.topic[:120]!r}"
            ) from None
        if limit is not None and not limit.admit(
            message.topic,
            ingested_at,
            backlog=backlog,
            sharers=sharers if kind == "telemetry" else 1,
        ):
            raise TooMany(
                f"vehicle {vehicle_id!r} sends more than {limit.per_s:g} messages/s on one topic, taken"
                f" over {BURST_S} s, which is the most that is accepted"
            )
        if message.cut:
            raise TooLarge(
                f"packet of {message.cut} bytes, of which the first are kept;"
                f" messages of at most {max_bytes} are accepted"
            )
        if len(message.payload) > max_bytes:
            raise TooLarge(
                f"message of {len(message.payload)} bytes; at most {max_bytes} is accepted"
            )
        if not message.payload:
            raise Invalid("the message is empty; a JSON object or Avro is accepted", reason="empty")
        headers: Headers = [("ingested-at", b"%d" % ingested_at)]
        suspect = False
        if kind == "telemetry" and (
            value := _ordinary(message, vehicle_id, ingested_at, counter, mode)
        ):
            headers.append(("content-type", _AVRO))
        elif kind == "telemetry":
            telemetry = codec.read_payload(
                message.payload,
                vehicle_id=vehicle_id,
                ingested_at=ingested_at,
                counter=counter,
                mode=mode,
                content_type=message.content_type,
            )
            value = codec.encode_telemetry(telemetry)
            suspect = bool(telemetry.suspect)
            headers.append(("content-type", _AVRO))
            if b'"traceparent"' in message.payload and message.payload[:1] == b"{":
                headers += _trace(codec.parse_object(message.payload))
        else:
            fields = _json(message)
            value = codec.dump(_record(kind, fields, vehicle_id, shard, ingested_at))
            headers.append(("content-type", _JSON))
            headers += _trace(fields)
    except WireError as error:
        rejected = rejection(
            error,
            source=f"mqtt:{message.topic}",
            at_ms=ingested_at,
            key=None if vehicle_id is None else vehicle_id.encode(),
            value=message.payload,
            headers=before,
            content_type=message.content_type,
            shard=shard,
            whole_bytes=message.cut,
        )
        return Accepted(rejected, kind or "unknown", error.reason)
    return Accepted(
        Record(_TOPICS[kind], vehicle_id.encode(), value, headers), kind, suspect=suspect
    )


def _ordinary(
    message: Publish, vehicle_id: str, ingested_at: int, counter: int, mode: Validation
) -> bytes | None:
    """The record of a message that needs no closer look: nearly all of them."""
    if message.content_type not in (None, "", codec.JSON):
        return None
    return codec.intake(mode).take(message.payload, vehicle_id.encode(), ingested_at, counter)


def _json(message: Publish) -> dict[str, Any]:
    if message.content_type not in (None, "", codec.JSON):
        raise UnknownSchema(
            f"content type {message.content_type[:60]!r} is not accepted here:"
            f" {codec.JSON} or none",
            reason="unknown_content_type",
        )
    return codec.parse_object(message.payload)


def _record(
    kind: Kind, fields: dict[str, Any], vehicle_id: str, shard: int, ingested_at: int
) -> Any:
    if kind == "status":
        return shapes.presence(fields, vehicle_id=vehicle_id, shard=shard, ingested_at=ingested_at)
    if kind == "reported":
        return shapes.reported(fields, vehicle_id=vehicle_id, ingested_at=ingested_at)
    return shapes.outcome(fields, vehicle_id=vehicle_id, ingested_at=ingested_at)


def _trace(fields: dict[str, Any]) -> Headers:
    trace = fields.get("traceparent")
    if isinstance(trace, str) and _TRACEPARENT.fullmatch(trace):
        return [("traceparent", trace.encode())]
    return []

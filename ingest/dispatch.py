"""Downlink records: read and checked, and what is told of their delivery. Pure.

Commands, cancels and desired states are for the car. `forget` is for its broker: an empty retained
message on the car's status, by which a broker drops the status that it retains (a twin was deleted).

A delivery is `sent` when the broker took the message, otherwise `refused` for one of these reasons:

* `expired`: expires_at passed before the broker took it
* `broker_away`: its broker is away and much waits behind (`ingest.downlink`)
* `unknown_shard`: no broker has that number
* `no_subscriber`: the broker knows nobody who would get it, so the car is not there (a 3.1.1 broker
  cannot say that; there it is `sent`). `forget` needs none
* `packet_too_large`, `not_authorized`, `quota_exceeded`, `topic_name_invalid`: the broker's words
* `broker_0x..`: any other refusal, by its MQTT 5 reason code
"""

from typing import Final, cast, get_args

from ingest import packets
from ingest.rejected import Record
from twin.wire import codec, topics
from twin.wire.errors import Invalid, Misaddressed
from twin.wire.ids import check_vehicle_id
from twin.wire.records import Delivery, Downlink, DownlinkKind

_LEAVES: Final[dict[DownlinkKind, str]] = {
    "command": "commands",
    "cancel": "commands",
    "desired": "desired",
    "forget": "status",
}
_REFUSALS: Final = {
    packets.NO_MATCHING_SUBSCRIBERS: "no_subscriber",
    0x87: "not_authorized",
    0x90: "topic_name_invalid",
    packets.PACKET_TOO_LARGE: "packet_too_large",
    0x97: "quota_exceeded",
}
_TYPES: Final[dict[str, type]] = {
    "id": str,
    "kind": str,
    "vehicle_id": str,
    "ref": str,
    "shard": int,
    "session": int,
    "payload": dict,
}


def read(key: bytes | None, value: bytes | None) -> Downlink:
    """The record, checked. Raises a `WireError` for what can never be sent."""
    fields = codec.parse_object(value or b"")
    for name, kind in _TYPES.items():
        found = fields.get(name)
        if found is None:
            raise Invalid(f"{name} is missing in the downlink record", reason="missing_field")
        if type(found) is not kind:
            raise Invalid(f"{name} is {str(found)[:60]!r}; {kind.__name__} is accepted")
    expires_at = fields.get("expires_at")
    if expires_at is not None and type(expires_at) is not int:
        raise Invalid(f"expires_at is {str(expires_at)[:60]!r}; int (ms) is accepted")
    if fields["kind"] not in _LEAVES:
        raise Invalid(
            f"kind is {fields['kind'][:60]!r};"
            f" one of {', '.join(get_args(DownlinkKind))} is accepted"
        )
    vehicle_id = check_vehicle_id(fields["vehicle_id"])
    if key != vehicle_id.encode():
        raise Misaddressed(f"the record's key {key!r:.80} is not its vehicle_id {vehicle_id!r}")
    return cast(Downlink, fields)


def mqtt_topic(order: Downlink) -> str:
    """Where it is said."""
    return topics.mqtt_topic(order["vehicle_id"], _LEAVES[order["kind"]])


def mqtt_payload(order: Downlink) -> bytes:
    """What is said there."""
    return b"" if order["kind"] == "forget" else codec.dump(order["payload"])


def is_retained(order: Downlink) -> bool:
    """Whether it is about what the broker retains."""
    return order["kind"] == "forget"


def seconds_left(order: Downlink, now_ms: int) -> float | None:
    """Seconds until it expires, 0 or less when it has; None when it never does."""
    expires_at = order.get("expires_at")
    return None if expires_at is None else (expires_at - now_ms) / 1000


def refusal(code: int, kind: DownlinkKind) -> str | None:
    """Why the broker did not take it, by the PUBACK's reason code; None when it did."""
    if code < packets.FAILURE and (code != packets.NO_MATCHING_SUBSCRIBERS or kind == "forget"):
        return None
    return _REFUSALS.get(code, f"broker_0x{code:02x}")


def delivery(order: Downlink, *, at: int, refused: str | None) -> Record:
    """The record that tells the twin what became of it, `at` ms."""
    told: Delivery = {
        "id": order["id"],
        "kind": order["kind"],
        "vehicle_id": order["vehicle_id"],
        "ref": order["ref"],
        "session": order["session"],
        "state": "sent" if refused is None else "refused",
        "at": at,
    }
    if refused is not None:
        told["reason"] = refused
    headers = [("ingested-at", str(at).encode()), ("content-type", codec.JSON.encode())]
    return Record(topics.DELIVERIES, order["vehicle_id"].encode(), codec.dump(told), headers)

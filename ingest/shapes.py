"""JSON of status, reported and outcomes -> the records of twin.wire.records, checked. Pure.

Only the fields of the contract go on; others are left behind, so that a newer car may say more.
What is wrong raises a `WireError` that names the field and what is accepted. A time further ahead
of its arrival than telemetry's may be is a wrong clock, too (design law 1: judged once, here).
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

from twin.wire.errors import Invalid, Misaddressed, TooLarge
from twin.wire.ids import vehicle_of
from twin.wire.records import Outcome, OutcomeState, Presence, Reported
from twin.wire.telemetry import CLOCK_AHEAD_MS

MAX_DEPTH: Final = 8
MAX_KEY_BYTES: Final = 128
MAX_ATTRIBUTES: Final = 32
MAX_TEXT_BYTES: Final = 256

_STATES: Final[tuple[str, ...]] = get_args(OutcomeState)
_INT64_MAX: Final = 2**63 - 1

Fields = Mapping[str, Any]


def presence(fields: Fields, *, vehicle_id: str, shard: int, ingested_at: int) -> Presence:
    """A status message. The record's reason says how it came about:

    `birth` (online), `goodbye` (offline, said by the car itself) or `will` (offline without `at`:
    written when the car connected, sent by the broker).
    """
    _same_vehicle(fields, vehicle_id)
    state = fields.get("state")
    if state not in ("online", "offline"):
        raise _wrong("state", state, "online or offline")
    session = _required(_time(fields, "session", ingested_at), "session")
    at = _time(fields, "at", ingested_at)
    record: Presence = {
        "vehicle_id": vehicle_id,
        "state": state,
        "session": session,
        "at": ingested_at if at is None else at,
        "shard": shard,
    }
    if state == "online":
        record["at"] = _required(at, "at")
        record["reason"] = "birth"
    else:
        record["reason"] = "will" if at is None else "goodbye"
    if fields.get("attributes") is not None:
        record["attributes"] = _attributes(fields["attributes"])
    return record


def reported(fields: Fields, *, vehicle_id: str, ingested_at: int) -> Reported:
    """Configuration that a car confirms."""
    _same_vehicle(fields, vehicle_id)
    properties = fields.get("properties")
    if properties is None:
        raise Invalid("properties is missing; an object is accepted", reason="missing_field")
    if not isinstance(properties, dict):
        raise _wrong("properties", properties, "an object")
    _check_tree(properties)
    record: Reported = {
        "vehicle_id": vehicle_id,
        "event_time": _required(_time(fields, "event_time", ingested_at), "event_time"),
        "session": _required(_time(fields, "session", ingested_at), "session"),
        "sequence": _required(_integer(fields, "sequence"), "sequence"),
        "properties": properties,
    }
    version = _integer(fields, "desired_version")
    if version is not None:
        record["desired_version"] = version
    return record


def outcome(fields: Fields, *, vehicle_id: str, ingested_at: int) -> Outcome:
    """What a car says of a command, which must be one of its own."""
    _same_vehicle(fields, vehicle_id)
    command_id = fields.get("command_id")
    if command_id is None:
        raise Invalid("command_id is missing", reason="missing_field")
    if not isinstance(command_id, str):
        raise _wrong("command_id", command_id, "a command id")
    if vehicle_of(command_id) != vehicle_id:
        raise Misaddressed(f"command {command_id!r} is not one of vehicle {vehicle_id!r}")
    state: Any = fields.get("state")
    if state not in _STATES:
        raise _wrong("state", state, f"one of {', '.join(_STATES)}")
    record: Outcome = {
        "vehicle_id": vehicle_id,
        "command_id": command_id,
        "state": state,
        "at": _required(_time(fields, "at", ingested_at), "at"),
    }
    progress = fields.get("progress")
    if progress is not None:
        if type(progress) not in (int, float):
            raise _wrong("progress", progress, "a number from 0 to 1")
        if not 0 <= progress <= 1:
            raise Invalid(
                f"progress is {progress}; a number from 0 to 1 is accepted", reason="out_of_range"
            )
        record["progress"] = float(progress)
    if fields.get("reason") is not None:
        record["reason"] = _text("reason", fields["reason"])
    return record


# --- Fields --------------------------------------------------------------------------------------


def _same_vehicle(fields: Fields, vehicle_id: str) -> None:
    claimed = fields.get("vehicle_id")
    if claimed is not None and claimed != vehicle_id:
        raise Misaddressed(
            f"vehicle_id {str(claimed)[:80]!r} in the payload is not {vehicle_id!r} of the topic"
        )


def _integer(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is None or (type(value) is int and 0 <= value <= _INT64_MAX):
        return value
    raise _wrong(name, value, "an integer from 0 to 2^63-1")


def _time(fields: Fields, name: str, ingested_at: int) -> int | None:
    value = _integer(fields, name)
    if value is not None and value > ingested_at + CLOCK_AHEAD_MS:
        raise Invalid(
            f"{name} {value} is {(value - ingested_at) // 1000} s ahead of its arrival;"
            f" at most {CLOCK_AHEAD_MS // 1000} s is accepted",
            reason="clock_ahead",
        )
    return value


def _required(value: int | None, name: str) -> int:
    if value is None:
        raise Invalid(f"{name} is missing; an integer is accepted", reason="missing_field")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "text")
    size = len(value.encode())
    if size > MAX_TEXT_BYTES:
        raise TooLarge(f"{name} has {size} bytes; at most {MAX_TEXT_BYTES} are accepted")
    return value


def _attributes(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong("attributes", value, "an object of texts")
    if len(value) > MAX_ATTRIBUTES:
        raise Invalid(
            f"{len(value)} attributes; at most {MAX_ATTRIBUTES} are accepted",
            reason="limit_reached",
        )
    for name, text in value.items():
        _check_key(name)
        if not name:
            raise Invalid("an attribute without a name is not accepted")
        _text(f"attribute {name!r}", text)
    return value


def _check_tree(root: dict[str, Any]) -> None:
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for key in value:
                    _check_key(key)
                below += value.values()
            else:
                below += value
        level = [value for value in below if isinstance(value, dict | list)]
        if not level:
            return
    raise Invalid(
        f"properties are nested deeper than {MAX_DEPTH} levels, the most that is accepted",
        reason="too_deep",
    )


def _check_key(key: str) -> None:
    size = len(key.encode())
    if size > MAX_KEY_BYTES:
        raise TooLarge(f"key {key[:40]!r}.. has {size} bytes; at most {MAX_KEY_BYTES} are accepted")


def _wrong(name: str, value: object, accepted: str) -> Invalid:
    if value is None:
        return Invalid(f"{name} is missing; {accepted} is accepted", reason="missing_field")
    return Invalid(f"{name} is {str(value)[:60]!r}; {accepted} is accepted")

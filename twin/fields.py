"""Which fields a JSON record must hold, and what each accepts: the contracts of `wire.records`, checked.

A check returns the value to keep, or None when it is not accepted. Fields that are not named here are
not kept, so nothing unknown enters a twin; an optional field that is null counts as absent.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from twin.effects import DeadlineOf
from twin.wire import topics
from twin.wire.errors import Invalid, Misaddressed, Reason
from twin.wire.ids import vehicle_of
from twin.wire.records import (
    CommandState,
    DownlinkKind,
    HealthState,
    OutcomeState,
    Refused,
    RequestKind,
)

MAX_ID: Final = 256
MAX_ATTRIBUTES: Final = 32
MAX_ATTRIBUTE_BYTES: Final = 256
MAX_NAME_BYTES: Final = 128
_INT64_MAX: Final = 2**63 - 1

_Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    check: _Check
    words: str
    required: bool = True
    reason: Reason = "bad_type"


def _integer_of(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _INT64_MAX else None


def _number_of(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _attributes_of(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or len(value) > MAX_ATTRIBUTES:
        return None
    for name, text in value.items():
        if not isinstance(text, str) or len(text.encode()) > MAX_ATTRIBUTE_BYTES:
            return None
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
            return None
    return value


def _one_of(values: tuple[str, ...], *, required: bool = True) -> Field:
    return Field(lambda v: v if v in values else None, f"one of {', '.join(values)}", required)


def _optional(field: Field) -> Field:
    return Field(field.check, field.words, required=False, reason=field.reason)


_INTEGER: Final = Field(_integer_of, "an integer from 0 to 2^63-1")
_NUMBER: Final = Field(_number_of, "a finite number")
_SHARE: Final = Field(
    lambda v: None if (n := _number_of(v)) is None or not 0 <= n <= 1 else n,
    "a number from 0 to 1",
    reason="out_of_range",
)
_ID: Final = Field(
    lambda v: v if isinstance(v, str) and 0 < len(v) <= MAX_ID else None,
    f"text of 1 to {MAX_ID} characters",
)
_TEXT: Final = Field(lambda v: v if isinstance(v, str) else None, "text", required=False)
_OBJECT: Final = Field(lambda v: v if isinstance(v, dict) else None, "a JSON object")
_ATTRIBUTES: Final = Field(
    _attributes_of,
    f"up to {MAX_ATTRIBUTES} names with text of at most {MAX_ATTRIBUTE_BYTES} bytes",
    required=False,
)

_MODEL_SHARE: Final = {"signal": _ID, "share": _NUMBER}


def _signals_of(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, list) or not all(isinstance(share, dict) for share in value):
        return None
    return [check(share, _MODEL_SHARE, "a share of a score") for share in value]


_MODEL: Final = {
    "version": _ID,
    "score": _optional(_NUMBER),
    "threshold": _optional(_NUMBER),
    "signals": Field(_signals_of, "a list of {signal, share}", required=False),
    "failure_probability": _optional(_SHARE),
    "horizon_s": _optional(_INTEGER),
    "remaining_s": _optional(_INTEGER),
    "remaining_low_s": _optional(_INTEGER),
    "remaining_high_s": _optional(_INTEGER),
}


def _models_of(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not all(isinstance(model, dict) for model in value.values()):
        return None
    if not all(1 <= len(name.encode()) <= MAX_NAME_BYTES for name in value):
        return None
    return {
        name: check(model, _MODEL, f"model {name[:60]!r} of a score")
        for name, model in value.items()
    }


FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    topics.PRESENCE: {
        "vehicle_id": _ID,
        "state": _one_of(("online", "offline")),
        "session": _INTEGER,
        "at": _INTEGER,
        "shard": _INTEGER,
        "attributes": _ATTRIBUTES,
        "reason": _TEXT,
    },
    topics.REPORTED: {
        "vehicle_id": _ID,
        "event_time": _INTEGER,
        "session": _INTEGER,
        "sequence": _INTEGER,
        "properties": _OBJECT,
        "desired_version": _optional(_INTEGER),
    },
    topics.OUTCOMES: {
        "vehicle_id": _ID,
        "command_id": _ID,
        "state": _one_of(get_args(OutcomeState)),
        "at": _INTEGER,
        "progress": _optional(_SHARE),
        "reason": _TEXT,
    },
    topics.DELIVERIES: {
        "id": _ID,
        "kind": _one_of(get_args(DownlinkKind)),
        "vehicle_id": _ID,
        "ref": _ID,
        "session": _INTEGER,
        "state": _one_of(("sent", "refused")),
        "at": _INTEGER,
        "reason": _TEXT,
    },
    topics.SCORES: {
        "id": _ID,
        "vehicle_id": _ID,
        "event_time": _INTEGER,
        "session": _INTEGER,
        "sequence": _INTEGER,
        "partition": _INTEGER,
        "offset": _INTEGER,
        "scored_at": _INTEGER,
        "state": _one_of(get_args(HealthState)),
        "models": Field(
            _models_of, f"an object of models by name of at most {MAX_NAME_BYTES} bytes"
        ),
        "why": _one_of(("state", "deadband", "heartbeat", "every")),
    },
    topics.REQUESTS: {
        "request_id": _ID,
        "kind": _one_of(get_args(RequestKind)),
        "vehicle_id": _ID,
        "at": _INTEGER,
        "by": _ID,
        "body": _OBJECT,
        "if_match": _optional(_INTEGER),
        "idempotency_key": _optional(_ID),
        "body_hash": _optional(_ID),
    },
}
"""What each record must hold; the same names as in `wire.records`. Other fields are not kept."""


def _said(states: Any) -> Callable[[Any], bool]:
    """Whether something is an object with one of these states and a time."""
    known = get_args(states)
    return lambda v: isinstance(v, dict) and v.get("state") in known and type(v.get("at")) is int


_WORD: Final = Field(_TEXT.check, "text")
_TIMES: Final = Field(
    lambda v: v if isinstance(v, list) and all(type(n) is int for n in v) else None,
    "a list of integers",
)


def _refused_of(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not value.keys() >= Refused.__required_keys__:
        return None
    return value if type(value["session"]) is int else None


ENTRY: Final[Mapping[str, Field]] = {
    "id": _ID,
    "vehicle_id": _ID,
    "name": _WORD,
    "args": _OBJECT,
    "lane": _WORD,
    "state": _one_of(get_args(CommandState)),
    "issued_at": _INTEGER,
    "expires_at": _INTEGER,
    "updated_at": _INTEGER,
    "by": _WORD,
    "history": Field(
        lambda v: v if isinstance(v, list) and all(map(_said(CommandState), v)) else None,
        "a list of {state, at}",
    ),
    "attempts": _TIMES,
    "refusals": _optional(_TIMES),
    "refused": Field(_refused_of, "an object {kind, session, at, reason}", required=False),
    "late": Field(
        lambda v: v if _said(OutcomeState)(v) else None, "an object {state, at}", required=False
    ),
    "progress": _optional(_SHARE),
    "cause": _optional(_OBJECT),
    "fleet": _TEXT,
    "idempotency_key": _TEXT,
    "body_hash": _TEXT,
    "revision": _optional(_INTEGER),
}
"""What an entry of the ledger must hold."""

DEADLINE: Final = {"of": _one_of(get_args(DeadlineOf)), "ref": _ID, "due": _INTEGER}


def check_entry(key: str, entry: Any) -> None:
    """Whether an entry of the ledger under `key` is whole; raises `WireError` saying what is not."""
    if not isinstance(entry, dict):
        raise Invalid("a ledger entry is a JSON object", reason="bad_type")
    check(entry, ENTRY, "a ledger entry")
    vehicle_id, command_id = entry["vehicle_id"], entry["id"]
    if vehicle_of(command_id) != vehicle_id or key != f"{vehicle_id}/{command_id}":
        raise Misaddressed(f"entry of {command_id[:100]!r}")


def check(fields: Mapping[str, Any], accepted: Mapping[str, Field], what: str) -> dict[str, Any]:
    """The accepted fields of `fields`. Raises `Invalid` naming field, value and what is accepted."""
    kept: dict[str, Any] = {}
    for name, field in accepted.items():
        value = fields.get(name)
        if value is None:
            if field.required:
                raise Invalid(
                    f"{name} is missing in {what}; {field.words} is accepted",
                    reason="missing_field",
                )
            continue
        keep = field.check(value)
        if keep is None:
            raise Invalid(
                f"{name} of {what} is {str(value)[:60]!r}; {field.words} is accepted",
                reason=field.reason,
            )
        kept[name] = keep
    return kept

"""OpenAPI schemas of what is answered, made from the records' own types and the catalogue.

Answers go out as stored, so these models serve documentation only; being made from
`twin.wire.records` they cannot differ from it.
"""

from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from typing_extensions import is_typeddict

from twin.wire import records
from twin.wire.catalogue import SIGNALS
from twin.wire.errors import Reason


@cache
def shape(record: type) -> type[BaseModel]:
    """A pydantic model of a TypedDict, nested ones included."""
    hints = get_type_hints(record)
    required: frozenset[str] = record.__required_keys__  # type: ignore[attr-defined]
    members: dict[str, Any] = {
        name: (_translated(hint), ... if name in required else None) for name, hint in hints.items()
    }
    model: type[BaseModel] = create_model(
        record.__name__, __config__=_config(record), __doc__=record.__doc__, **members
    )
    return model


def _translated(hint: Any) -> Any:
    if is_typeddict(hint):
        return shape(hint)
    origin = get_origin(hint)
    arguments = tuple(_translated(argument) for argument in get_args(hint))
    if origin is Mapping:
        origin = dict
    if origin in (list, dict):
        return origin[arguments]
    return reduce(or_, arguments) if origin is UnionType else hint


def _config(record: type) -> ConfigDict:
    return ConfigDict(json_schema_extra=_signals) if record is records.Twin else ConfigDict()


def _signals(schema: dict[str, Any]) -> None:
    """Name the catalogue's signals under `reported`, with unit and range."""
    schema["properties"]["reported"] = {
        "type": "object",
        "title": "Reported",
        "description": "Last value of each signal that the car has; v in the signal's unit",
        "additionalProperties": False,
        "properties": {
            s.name: {
                "allOf": [{"$ref": "#/components/schemas/SignalValue"}],
                "description": f"{s.unit}; {s.low:g} to {s.high:g}; VSS {s.vss}",
            }
            for s in SIGNALS
        },
    }


class DesiredView(TypedDict):
    """What is wanted of a car, and what of it the car has not confirmed (`delta`)."""

    version: int
    properties: dict[str, Any]
    status: dict[str, records.PropertyStatus]
    delta: dict[str, Any]


class TwinPage(TypedDict):
    """One page of twins; `next_cursor` is null on the last, and only there."""

    items: list[records.Twin]
    next_cursor: str | None


class CommandPage(TypedDict):
    """One page of commands; `next_cursor` is null on the last."""

    items: list[records.Command]
    next_cursor: str | None


class Alarm(TypedDict):
    """A vehicle in alarm, since when (ms)."""

    vehicle_id: str
    since: int


class Percentiles(TypedDict):
    """How many twins have a signal, and the numbers that 5, 50, 95, 99 % of them do not exceed.

    Absent where no twin has it. The index lags a little behind: coolant_temp at most 2 degC, speed 2 m/s,
    battery_percentage 0.02, engine_vibration_amplitude 40 mV.
    """

    twins: int
    p5: NotRequired[float]
    p50: NotRequired[float]
    p95: NotRequired[float]
    p99: NotRequired[float]


class Fleet(TypedDict):
    """Numbers of twins, in total and by value (the 100 most frequent); the newest alarms."""

    total: int
    presence: dict[str, int]
    health: dict[str, int]
    fleet: dict[str, int]
    model: dict[str, int]
    firmware: dict[str, int]
    signals: dict[str, Percentiles]
    alarms: list[Alarm]


class RejectedItem(TypedDict):
    """A rejected record without its bytes. Times in ms; `size` is the original's in bytes.

    `at` is when it was rejected (the last time), `ingested_at` when it first arrived. `truncated` is
    there when not all of its `size` bytes were kept.
    """

    id: str
    at: int
    reason: Reason
    detail: str
    source: str
    attempts: int
    vehicle_id: str | None
    ingested_at: int
    content_type: str | None
    size: int
    truncated: NotRequired[bool]
    redriven_by: NotRequired[str]


class OriginalHeader(TypedDict):
    """A header of the original; `value` is text, or base64 when `encoding` says so."""

    name: str
    value: str
    encoding: Literal["text", "base64"]


class RejectedRecord(RejectedItem):
    """A rejected record. `value`: the original, text or base64 as `encoding` says; null: it had none."""

    encoding: Literal["text", "base64"]
    value: str | None
    headers: list[OriginalHeader]
    headers_truncated: NotRequired[int]


class RejectedPage(TypedDict):
    """One page; `next_cursor` is null on the last. A page may be short, or empty, before the last."""

    items: list[RejectedItem]
    next_cursor: str | None


class Redriven(TypedDict):
    """A record was driven again: to which topic, and how often it was rejected before."""

    id: str
    topic: str
    attempts: int
    changed: bool


class NotRedriven(TypedDict):
    """Why a record was not driven again: code of a problem, and a sentence."""

    id: str
    code: str
    detail: str


class RedrivenMany(TypedDict):
    """What became of a call: `matched` records, of which `redriven` are on their way.

    `ids`: those redriven, or in a dry run all that match. `next_cursor`: where to go on, null at the end.
    `cursor`: where this call began; a call with it finds the same records, none that came since.
    """

    dry_run: bool
    matched: int
    redriven: int
    ids: list[str]
    failed: list[NotRedriven]
    cursor: str | None
    next_cursor: str | None


class ProblemDocument(TypedDict):
    """RFC 9457; `code` is stable (GET /v1/problems lists them), `detail` is one sentence."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: NotRequired[str]

"""Request bodies: what is accepted, checked before anything is asked of a twin's owner.

Content type, size and JSON are judged here for every route alike; unknown members are refused, so a
misspelt name is an answer and not a silent default. What depends on the twin (its document limit,
its open commands) only the owner can judge.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from twin.api.problems import Problem
from twin.wire.errors import Reason
from twin.wire.records import FREE_LANE

MERGE_PATCH: Final = "application/merge-patch+json"
JSON: Final = "application/json"
MAX_REDRIVE_BYTES: Final = 512 * 1024
"""The longest message in base64, and then some."""
MAX_ARGS_BYTES: Final = 32 * 1024
MAX_DEPTH: Final = 8
MAX_KEY_BYTES: Final = 128

Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$", min_length=1, max_length=64)
]


class CommandBody(BaseModel):
    """A command for a car."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name = Field(description="what the car shall do, e.g. ping", examples=["ping"])
    args: dict[str, Any] = Field(
        default_factory=dict, description="up to 32 KB of JSON, 8 levels deep"
    )
    ttl_s: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description="life of the command in seconds, at most 7 days; 1 hour unless the worker is set"
        " otherwise",
    )
    lane: Name = Field(
        default=FREE_LANE,
        description="the commands of a lane go to the car one after the other, each when the one before"
        f" has ended; those of {FREE_LANE} (no lane) do not wait",
    )


class ApprovalBody(BaseModel):
    """An answer to a rule that awaits approval."""

    model_config = ConfigDict(extra="forbid", strict=True)

    verdict: Literal["approve", "refuse"]


class RedriveBody(BaseModel):
    """What is changed before a record is driven again: one of both, or nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    patch: dict[str, Any] | None = Field(
        default=None, description="JSON merge patch (RFC 7396) of an original that is a JSON object"
    )
    value: str | None = Field(default=None, description="what takes its place, in base64")


class RejectedFilter(BaseModel):
    """Which rejected records; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    reason: Reason | None = Field(default=None, description="reason code")
    vehicle_id: str | None = Field(default=None, description="of this vehicle")
    source: str | None = Field(
        default=None,
        max_length=1000,
        description="where it came from, or the beginning of that, e.g. mqtt:vehicles/car-1/ or"
        " kafka:scores/",
    )
    at_from: int | None = Field(
        default=None, alias="from", ge=0, description="rejected at this time or later, ms"
    )
    at_to: int | None = Field(
        default=None, alias="to", ge=0, description="rejected before this time, ms"
    )


class RedriveManyBody(BaseModel):
    """Which rejected records to drive again, the newest first."""

    model_config = ConfigDict(extra="forbid", strict=True)

    filter: RejectedFilter = Field(description="{} = all")
    dry_run: bool = Field(default=False, description="only count and list")
    limit: int = Field(default=100, ge=1, le=500, description="most records of one call")
    cursor: str | None = Field(default=None, description="next_cursor of the call before")


class AttributesBody(RootModel[dict[str, str]]):
    """Attributes of a vehicle: text by name. Replaces all attributes."""

    model_config = ConfigDict(strict=True)


async def read_object(request: Request, *accepted: str, most: int | None = None) -> dict[str, Any]:
    """The body as a JSON object. Raises `Problem`: 415, 413, malformed_json, invalid_body.

    `most` bytes are accepted; as the process is set, when none is given.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in accepted:
        raise Problem(
            "unsupported_media_type",
            f"content type {content_type[:80]!r} is not accepted: {' or '.join(accepted)}",
            headers={"Accept-Patch": MERGE_PATCH} if MERGE_PATCH in accepted else {},
        )
    value = _load(await _read(request, most))
    if not isinstance(value, dict):
        raise Problem("invalid_body", f"a JSON object is accepted, not {_kind(value)}")
    return value


async def read_command(request: Request) -> CommandBody:
    """A command body, checked. Raises `Problem`."""
    value = await read_object(request, JSON)
    try:
        body = CommandBody.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error, CommandBody) from error
    size = len(orjson.dumps(body.args))
    if size > MAX_ARGS_BYTES:
        raise Problem("too_large", f"args of {size} bytes; at most {MAX_ARGS_BYTES} are accepted")
    check_shape(body.args, "args")
    return body


async def read_approval(request: Request) -> ApprovalBody:
    """An answer, checked. Raises `Problem`."""
    value = await read_object(request, JSON)
    try:
        return ApprovalBody.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error, ApprovalBody) from error


async def read_redrive(request: Request) -> RedriveBody:
    """What is changed, checked; an empty body changes nothing. Raises `Problem`."""
    if request.headers.get("content-length", "0") == "0" and (
        "transfer-encoding" not in request.headers
    ):
        return RedriveBody()
    value = await read_object(request, JSON, most=MAX_REDRIVE_BYTES)
    try:
        body = RedriveBody.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error, RedriveBody) from error
    if body.patch is not None and body.value is not None:
        raise Problem("invalid_body", "patch and value are given; one of both is accepted")
    if body.patch is not None:
        check_shape(body.patch, "patch")
    return body


async def read_redrive_many(request: Request) -> RedriveManyBody:
    """Which records, checked. Raises `Problem`."""
    value = await read_object(request, JSON)
    try:
        return RedriveManyBody.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error, RedriveManyBody) from error


async def read_attributes(request: Request) -> dict[str, str]:
    """Attributes, checked. Raises `Problem`."""
    value = await read_object(request, JSON)
    try:
        AttributesBody.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error, AttributesBody) from error
    check_shape(value, "attributes")
    return value


async def read_desired(request: Request, *accepted: str) -> dict[str, Any]:
    """Desired properties or a merge patch of them, checked. Raises `Problem`."""
    value = await read_object(request, *accepted)
    check_shape(value, "desired")
    return value


def check_shape(value: Mapping[str, Any], what: str) -> None:
    """Depth and key lengths of a JSON object (the object itself is level 1). Raises `Problem`."""
    level: list[Any] = [value]
    for _depth in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            if isinstance(node, Mapping):
                for key in node:
                    if len(key.encode()) > MAX_KEY_BYTES:
                        raise Problem(
                            "key_too_long",
                            f"{what} has a key of {len(key.encode())} bytes"
                            f" ({key[:40]!r}); at most {MAX_KEY_BYTES} are accepted",
                        )
                below += node.values()
            else:
                below += node
        level = [node for node in below if isinstance(node, dict | list)]
        if not level:
            return
    raise Problem("too_deep", f"{what} is nested deeper than {MAX_DEPTH} levels")


def invalid_body(error: ValidationError, model: type[BaseModel]) -> Problem:
    """Name each member that is not accepted and what would be."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in fault["loc"])[:200] or "body"
        text = fault["msg"][0].lower() + fault["msg"][1:]
        if fault["type"] == "extra_forbidden":
            text = f"is not known; members: {', '.join(model.model_fields)}"
        elif fault["type"] == "missing":
            text = "is required"
        faults.append({"in": "body", "name": name, "detail": text})
    detail = "; ".join(f"{fault['name']}: {fault['detail']}" for fault in faults)
    return Problem("invalid_body", detail[:1000], members={"errors": faults[:20]})


async def _read(request: Request, most: int | None) -> bytes:
    if most is None:
        most = request.app.state.services.message_max_bytes
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    chunks: list[bytes] = []
    received = 0
    if size <= most:
        async for chunk in request.stream():
            received += len(chunk)
            if received > most:
                break
            chunks.append(chunk)
    if max(size, received) > most:
        raise Problem(
            "too_large",
            f"the body is longer than {most} bytes, which is the most accepted",
            headers={"Connection": "close"},
        )
    return b"".join(chunks)


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("malformed_json", f"the body is not JSON: {str(error)[:160]}") from error


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number"

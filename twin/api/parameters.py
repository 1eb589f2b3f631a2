"""Query parameters, headers and path ids that several routes share.

Unknown parameters are refused: a misspelt `filter` must not list the whole fleet.
"""

import asyncio
import re
import time
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from twin.api.filters import FIELDS
from twin.api.problems import Problem
from twin.api.services import Services
from twin.api.tokens import decode_token
from twin.wire.errors import Reason
from twin.wire.ids import check_vehicle_id, vehicle_of
from twin.wire.pointer import MAX_CHARS

_POLL_S: Final = 0.04
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

After = Annotated[
    str | None,
    Field(description="a Cartwin-Token: answer when that write is visible (at most 5 s, then 504)"),
]
Fields = Annotated[
    str | None,
    Field(description="paths, e.g. reported.coolant_temp,health (at most 100)", min_length=1),
]
Limit = Annotated[int, Field(ge=1, le=200, description="items a page")]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before")]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NoQuery(_Query):
    """No parameter is accepted."""


class TwinQuery(_Query):
    """Of one twin."""

    fields: Fields = None
    after: After = None
    at: Annotated[str | None, Field(description="time travel; not available yet (501)")] = None


class ExplainQuery(_Query):
    """Of an explanation."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_CHARS,
            description="reported.coolant_temp, or as a JSON pointer: /reported/coolant_temp",
        ),
    ]
    after: After = None


class DesiredQuery(_Query):
    """Of a desired document."""

    after: After = None


class ListQuery(_Query):
    """Of a list of twins."""

    filter: Annotated[
        str | None,
        Field(
            description="conditions on indexed fields joined by and, e.g. health eq alarm and speed gt"
            f" 20; operators eq ne gt ge lt le; fields: {', '.join(FIELDS)}"
        ),
    ] = None
    sort: Annotated[
        str,
        Field(description="vehicle_id or an indexed field; with a minus from the greatest down"),
    ] = "vehicle_id"
    limit: Limit = 25
    cursor: Cursor = None
    fields: Fields = None
    after: After = None


class CommandsQuery(_Query):
    """Of the commands of one vehicle."""

    limit: Limit = 25
    cursor: Cursor = None
    after: After = None


class LatestQuery(_Query):
    """Of the latest commands of all vehicles."""

    limit: Limit = 25


class RejectedQuery(_Query):
    """Of a list of rejected records."""

    reason: Annotated[Reason | None, Field(description="reason code")] = None
    vehicle_id: Annotated[str | None, Field(description="of this vehicle")] = None
    source: Annotated[
        str | None,
        Field(
            max_length=1000,
            description="where it came from, or the beginning of that, e.g. mqtt:vehicles/car-1/ or"
            " kafka:scores/",
        ),
    ] = None
    at_from: Annotated[
        int | None, Field(alias="from", ge=0, description="rejected at this time or later, ms")
    ] = None
    at_to: Annotated[
        int | None, Field(alias="to", ge=0, description="rejected before this time, ms")
    ] = None
    limit: Limit = 25
    cursor: Cursor = None


NoParameters = Annotated[NoQuery, Query()]

# Coroutines, though they wait for nothing: the framework gives a plain function to another thread.


async def _vehicle_id(
    vehicle_id: Annotated[str, Path(description="1 to 64 of A-Z a-z 0-9 . _ -")],
) -> str:
    return check_vehicle_id(vehicle_id)


async def _command_id(command_id: Annotated[str, Path(description="<vehicle id>.<ULID>")]) -> str:
    vehicle_of(command_id)
    return command_id


async def _key(
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 visible ASCII characters; the same key, the same decision for 24 h"
            " (a 429 is none: it is asked again)",
        ),
    ] = None,
) -> str | None:
    if idempotency_key is None or _KEY.fullmatch(idempotency_key):
        return idempotency_key
    raise Problem(
        "invalid_header",
        f"Idempotency-Key {idempotency_key[:80]!r} is not accepted: 1 to 255 visible ASCII"
        " characters",
    )


async def _traceparent(traceparent: Annotated[str | None, Header()] = None) -> str | None:
    # W3C Trace Context: a value that is not understood is ignored.
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


VehicleId = Annotated[str, Depends(_vehicle_id)]
CommandId = Annotated[str, Depends(_command_id)]
Key = Annotated[str | None, Depends(_key)]
Traceparent = Annotated[str | None, Depends(_traceparent)]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description='ETag of the desired document, e.g. "d3"')
]


async def wait_until_visible(services: Services, after: str | None) -> None:
    """Return when the view shows the write behind the token. Raises `Problem` not_visible_yet."""
    if after is None:
        return
    token = decode_token(after)
    deadline = time.monotonic() + services.wait_s
    while not token.seen_in(await services.reader.revision(token.vehicle_id)):
        if time.monotonic() > deadline:
            raise Problem(
                "not_visible_yet",
                f"revision {token.revision} of {token.vehicle_id} is not visible after"
                f" {services.wait_s:g} s",
                headers={"Retry-After": "1"},
            )
        await asyncio.sleep(_POLL_S)

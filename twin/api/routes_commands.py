"""Commands: send, read, cancel; and the stored decision on any request."""

from typing import Annotated
from uuid import uuid4

import orjson
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from twin.api import answers, bodies, shapes, tokens
from twin.api.documented import body_of, problems
from twin.api.parameters import (
    CommandId,
    CommandsQuery,
    Key,
    LatestQuery,
    NoParameters,
    Traceparent,
    VehicleId,
    wait_until_visible,
)
from twin.api.problems import Problem
from twin.api.requests import Wish
from twin.api.services import Needs
from twin.wire import ids, records

router = APIRouter(tags=["commands"])

_ENTRY = shapes.shape(records.Command)


@router.post(
    "/v1/twins/{vehicle_id}/commands",
    summary="Send a command",
    status_code=201,
    openapi_extra=body_of(bodies.CommandBody, bodies.JSON),
    responses={
        201: {"model": _ENTRY, "description": "ledger entry; Location names it"},
        **problems(400, 404, 409, 413, 415, 422, 429, 503, 504),
    },
)
async def post_command(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
) -> Response:
    """Answers when the owner has it in the ledger; the car may be offline."""
    body = await bodies.read_command(request)
    command_id = ids.command_id(vehicle_id, needs.clock.now_ms(), key or uuid4().hex)
    wish = Wish(
        "command",
        vehicle_id,
        # A life that is not named is the owner's to choose: it is a setting of the worker.
        {"id": command_id, **body.model_dump(exclude_none=True)},
        key=key,
        traceparent=trace,
    )
    decision = await needs.requests.ask(wish)
    made = decision.reply["body"].get("id", command_id)
    return answers.decided(decision, {"Location": f"/v1/commands/{made}"})


@router.get(
    "/v1/twins/{vehicle_id}/commands",
    summary="List the commands of a car",
    responses={200: {"model": shapes.shape(shapes.CommandPage)}, **problems(400, 404, 503, 504)},
)
async def list_commands(
    request: Request, needs: Needs, vehicle_id: VehicleId, query: Annotated[CommandsQuery, Query()]
) -> Response:
    """Ledger entries, the newest first."""
    after = tokens.decode_cursor(query.cursor) if query.cursor is not None else None
    await wait_until_visible(needs, query.after)
    entries, last = await needs.reader.commands_of(vehicle_id, after, query.limit)
    if not entries and await needs.reader.revision(vehicle_id) is None:
        raise Problem("twin_not_found", f"there is no twin of {vehicle_id}")
    cursor = tokens.encode_cursor(last) if last is not None else None
    return answers.document(request, answers.page(entries, cursor))


@router.get(
    "/v1/commands",
    summary="List the latest commands of all cars",
    responses={200: {"model": shapes.shape(shapes.CommandPage)}, **problems(400, 503)},
)
async def latest_commands(
    request: Request, needs: Needs, query: Annotated[LatestQuery, Query()]
) -> Response:
    """Ledger entries, the last changed first. One page only: the list moves too fast to turn."""
    entries = await needs.reader.recent_commands(query.limit)
    return answers.document(request, answers.page(entries, None))


@router.get(
    "/v1/commands/{command_id}",
    summary="Read a command",
    responses={200: {"model": _ENTRY}, **problems(400, 404, 503)},
)
async def get_command(
    request: Request, needs: Needs, command_id: CommandId, _query: NoParameters
) -> Response:
    """The ledger entry: state, history, cause."""
    entry = await needs.reader.command(command_id)
    if entry is None:
        raise Problem("command_not_found", f"there is no command {command_id}")
    return answers.document(request, entry)


@router.post(
    "/v1/commands/{command_id}/cancel",
    summary="Cancel a command",
    responses={200: {"model": _ENTRY}, **problems(400, 404, 409, 410, 429, 503, 504)},
)
async def cancel_command(
    needs: Needs, command_id: CommandId, key: Key, trace: Traceparent, _query: NoParameters
) -> Response:
    """409 or 410 with the state when it cannot be cancelled any more."""
    wish = Wish(
        "cancel",
        ids.vehicle_of(command_id),
        {"command_id": command_id},
        key=key,
        traceparent=trace,
    )
    return answers.decided(await needs.requests.ask(wish))


@router.get(
    "/v1/requests/{request_id}",
    tags=["requests"],
    summary="Read the stored decision on a write",
    responses={200: {"model": shapes.shape(records.Reply)}, **problems(400, 404, 503)},
)
async def get_decision(
    request: Request,
    needs: Needs,
    request_id: Annotated[str, Path(pattern="^[0-9a-f]{32,64}$")],
    _query: NoParameters,
) -> Response:
    """What the owner decided; kept 24 h. The request id is in the body of a 504."""
    for reply in await needs.reader.replies([request_id]):
        return answers.document(request, orjson.dumps(reply))
    raise Problem("request_not_found", f"no decision on {request_id} is stored (yet)")

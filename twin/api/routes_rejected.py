"""Rejected records: list, look, send again (one, or many by filter)."""

import re
from base64 import b64decode, b64encode
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from twin.api import answers, bodies, shapes
from twin.api.bodies import RedriveBody
from twin.api.documented import body_of, problems
from twin.api.parameters import NoParameters, RejectedQuery
from twin.api.problems import Problem
from twin.api.rejected_log import Whole
from twin.api.rejected_scan import Record, Wanted, batches
from twin.api.request_log import LogUnavailable
from twin.api.services import Needs
from twin.wire import redrive
from twin.wire.codec import MAX_MESSAGE_BYTES
from twin.wire.ids import check_vehicle_id
from twin.wire.merge import merge_patch
from twin.wire.redrive import Again, NotRedrivable

router = APIRouter(tags=["rejected"])

_ID: Final = re.compile(r"(0|[1-9][0-9]{0,5})-(0|[1-9][0-9]{0,17})")
_BY: Final = "api"


async def _place(
    rejected_id: Annotated[str, Path(description="<partition>-<offset>, as the list names it")],
) -> tuple[int, int]:
    found = _ID.fullmatch(rejected_id)
    if found is None:
        raise Problem(
            "invalid_parameter",
            f"path parameter rejected_id: {rejected_id[:80]!r} is no id: <partition>-<offset> is",
        )
    return int(found[1]), int(found[2])


Place = Annotated[tuple[int, int], Depends(_place)]


@router.get(
    "/v1/rejected",
    summary="List records that could not be accepted",
    responses={200: {"model": shapes.shape(shapes.RejectedPage)}, **problems(400, 503)},
)
async def list_rejected(
    request: Request, needs: Needs, query: Annotated[RejectedQuery, Query()]
) -> Response:
    """The newest first. Kafka keeps them 30 days and has no index: a filter by vehicle or time is cheap;
    with another that matches little a page may be short, or empty, and names the cursor to go on.
    """
    wanted = _wanted(query)
    page = await needs.rejected.page(wanted, query.cursor, query.limit)
    items = (orjson.dumps(_item(record)) for record in page.items)
    return answers.document(request, answers.page(items, page.cursor))


@router.get(
    "/v1/rejected/{rejected_id}",
    summary="Read a rejected record",
    responses={200: {"model": shapes.shape(shapes.RejectedRecord)}, **problems(400, 404, 503)},
)
async def get_rejected(
    request: Request, needs: Needs, place: Place, _query: NoParameters
) -> Response:
    """The original's bytes and headers, why it was rejected, where it came from, how often it was."""
    found = await _one(needs, place)
    value, encoding = _text(found.value or b"")
    told = redrive.read(found.headers)
    document: dict[str, Any] = {
        **_item(found.record),
        "encoding": encoding,
        "value": None if found.value is None else value,
        "headers": [
            dict(zip(("name", "value", "encoding"), (name, *_text(content)), strict=True))
            for name, content in told.originals
        ],
    }
    if told.headers_truncated:
        document["headers_truncated"] = told.headers_truncated
    return answers.document(request, orjson.dumps(document))


@router.post(
    "/v1/rejected/redrive",
    summary="Send rejected records again by filter",
    openapi_extra=body_of(bodies.RedriveManyBody, bodies.JSON),
    responses={
        200: {"model": shapes.shape(shapes.RedrivenMany)},
        **problems(400, 413, 415, 422, 503),
    },
)
async def redrive_many(request: Request, needs: Needs, _query: NoParameters) -> Response:
    """The newest first, as they are; at most `limit` a call. What fails again is rejected as a new
    record, so going on by `next_cursor` never meets it. The answer names those that could not be sent.
    """
    body = await bodies.read_redrive_many(request)
    page = await needs.rejected.page(_wanted(body.filter), body.cursor, body.limit)
    sent: list[str] = []
    failed: list[dict[str, str]] = []
    if body.dry_run:
        sent = [record.id for record in page.items]
    else:
        asked = {record.id for record in page.items}
        found: set[str] = set()
        for spans in batches(page.items):
            wholes = [one for one in await needs.rejected.read(spans) if one.record.id in asked]
            found |= {one.record.id for one in wholes}
            await _send_all(needs, wholes, sent, failed)
        failed += [
            _failure(one, Problem("rejected_not_found", f"{one} is not kept any more"))
            for one in sorted(asked - found)
        ]
        order = {record.id: number for number, record in enumerate(page.items)}
        sent.sort(key=order.__getitem__)
        failed.sort(key=lambda one: order[one["id"]])
    answer = {
        "dry_run": body.dry_run,
        "matched": len(page.items),
        "redriven": 0 if body.dry_run else len(sent),
        "ids": sent,
        "failed": failed,
        "cursor": page.start,
        "next_cursor": page.cursor,
    }
    return Response(orjson.dumps(answer), media_type=answers.JSON)


@router.post(
    "/v1/rejected/{rejected_id}/redrive",
    summary="Send a rejected record again",
    status_code=202,
    openapi_extra=body_of(bodies.RedriveBody, bodies.JSON, required=False),
    responses={
        202: {"model": shapes.shape(shapes.Redriven), "description": "Kafka has it"},
        **problems(400, 404, 409, 413, 415, 422, 503),
    },
)
async def redrive_one(
    request: Request, needs: Needs, place: Place, _query: NoParameters
) -> Response:
    """As it is, with a merge patch, or with other bytes. A message of a car is judged by the uplink once
    more, as of its first arrival; a Kafka record goes to its topic again. What fails again is rejected as
    a new record, with one attempt more.
    """
    body = await bodies.read_redrive(request)
    found = await _one(needs, place)
    again = _again(found, body)
    (fault,) = await needs.rejected.send([again])
    if fault is not None:
        raise LogUnavailable(fault)
    answer = {
        "id": found.record.id,
        "topic": again.topic,
        "attempts": found.record.told.attempts,
        "changed": again.value != found.value,
    }
    return Response(orjson.dumps(answer), status_code=202, media_type=answers.JSON)


async def _one(needs: Needs, place: tuple[int, int]) -> Whole:
    partition, offset = place
    for found in await needs.rejected.read({partition: (offset, offset + 1)}):
        return found
    raise Problem(
        "rejected_not_found", f"there is no rejected record {partition}-{offset} (any more)"
    )


async def _send_all(
    needs: Needs, wholes: list[Whole], sent: list[str], failed: list[dict[str, str]]
) -> None:
    ready: list[tuple[str, Again]] = []
    for one in wholes:
        try:
            ready.append((one.record.id, _again(one, RedriveBody())))
        except Problem as problem:
            failed.append(_failure(one.record.id, problem))
    faults = await needs.rejected.send([again for _, again in ready])
    for (rejected_id, _), fault in zip(ready, faults, strict=True):
        if fault is None:
            sent.append(rejected_id)
        else:
            failed.append(_failure(rejected_id, Problem("log_unavailable", fault)))


def _failure(rejected_id: str, problem: Problem) -> dict[str, str]:
    return {"id": rejected_id, "code": problem.code, "detail": problem.detail}


def _again(found: Whole, body: RedriveBody) -> Again:
    """What is to be produced. Raises `Problem`."""
    value, changed = found.value, False
    if body.value is not None:
        try:
            value, changed = b64decode(body.value, validate=True), True
        except ValueError as error:
            raise Problem("invalid_body", f"value is not base64: {error}") from error
    elif body.patch is not None:
        value = _patched(found, body.patch)
    # An original as it is may be longer: it came through Kafka once.
    if value is not None and value != found.value and len(value) > MAX_MESSAGE_BYTES:
        raise Problem("too_large", f"{len(value)} bytes; at most {MAX_MESSAGE_BYTES} are accepted")
    try:
        return redrive.again(found.record.key, value, found.headers, by=_BY, changed=changed)
    except NotRedrivable as error:
        raise Problem("not_redrivable", f"{found.record.id}: {error}") from error


def _patched(found: Whole, patch: dict[str, Any]) -> bytes:
    try:
        original = orjson.loads(found.value or b"")
    except orjson.JSONDecodeError:
        original = None
    if not isinstance(original, dict):
        raise Problem(
            "not_patchable",
            f"the original of {found.record.id} is no JSON object; give other bytes as value (base64)",
        )
    try:
        return orjson.dumps(merge_patch(original, patch))
    except orjson.JSONEncodeError as error:
        raise Problem(
            "not_patchable", f"the original of {found.record.id} is nested too deeply to be patched"
        ) from error


def _wanted(given: RejectedQuery | bodies.RejectedFilter) -> Wanted:
    if given.vehicle_id is not None:
        check_vehicle_id(given.vehicle_id)
    return Wanted(given.reason, given.vehicle_id, given.source, given.at_from, given.at_to)


def _item(record: Record) -> dict[str, Any]:
    told = record.told
    item: dict[str, Any] = {
        "id": record.id,
        "at": record.at,
        "reason": told.reason,
        "detail": told.detail,
        "source": told.source,
        "attempts": told.attempts,
        "vehicle_id": None if record.key is None else record.key.decode(errors="replace"),
        "ingested_at": told.ingested_at,
        "content_type": told.content_type,
        "size": told.truncated or record.size,
    }
    if told.truncated:
        item["truncated"] = True
    if told.redriven_by is not None:
        item["redriven_by"] = told.redriven_by
    return item


def _text(content: bytes) -> tuple[str, str]:
    """Bytes as JSON can say them, and how."""
    try:
        return content.decode(), "text"
    except UnicodeDecodeError:
        return b64encode(content).decode(), "base64"

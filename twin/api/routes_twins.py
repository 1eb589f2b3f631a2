"""Twins: read, list, desired, attributes, delete."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from twin.api import answers, bodies, etags, fields, filters, listing, order, shapes
from twin.api.documented import body_of, problems
from twin.api.parameters import (
    DesiredQuery,
    IfMatch,
    Key,
    ListQuery,
    NoParameters,
    Traceparent,
    TwinQuery,
    VehicleId,
    wait_until_visible,
)
from twin.api.problems import Problem
from twin.api.requests import Wish
from twin.api.services import Needs, Services
from twin.wire import records

router = APIRouter(tags=["twins"])

_DESIRED: dict[int | str, dict[str, Any]] = {
    200: {"model": shapes.shape(shapes.DesiredView), "description": "desired and delta"}
}


@router.get(
    "/v1/twins",
    summary="List twins",
    responses={200: {"model": shapes.shape(shapes.TwinPage)}, **problems(400, 503, 504)},
)
async def list_twins(
    request: Request, needs: Needs, query: Annotated[ListQuery, Query()]
) -> Response:
    """Filtered and sorted by indexed fields, stable under change.

    `next_cursor` is null on the last page and nowhere else: where a filter is met by few of very many
    twins a page may have less than `limit` items, even none, and there is still more.
    """
    conditions = filters.parse(query.filter) if query.filter is not None else ()
    by = order.parse(query.sort)
    wanted = fields.parse(query.fields) if query.fields is not None else None
    after = by.decode(query.cursor) if query.cursor is not None else None
    await wait_until_visible(needs, query.after)
    documents, place = await listing.select(needs.reader, conditions, by, after, query.limit)
    if wanted is not None:
        documents = [_projected(document, wanted) for document in documents]
    cursor = by.encode(place) if place is not None else None
    return answers.document(request, answers.page(documents, cursor))


@router.get(
    "/v1/twins/{vehicle_id}",
    summary="Read a twin",
    responses={
        200: {"model": shapes.shape(records.Twin)},
        304: {"description": "If-None-Match names the current ETag"},
        **problems(400, 404, 501, 503, 504),
    },
)
async def get_twin(
    request: Request, needs: Needs, vehicle_id: VehicleId, query: Annotated[TwinQuery, Query()]
) -> Response:
    """The state document, or the parts named by `fields`; ETag `"r<revision>"`."""
    if query.at is not None:
        raise Problem("not_available_yet", "at= (a twin as it was) is not available yet")
    wanted = fields.parse(query.fields) if query.fields is not None else None
    await wait_until_visible(needs, query.after)
    if request.headers.get("if-none-match") is not None:
        tag = etags.of_revision(await needs.reader.revision(vehicle_id) or 0)
        if etags.none_match_hits(request.headers["if-none-match"], tag) and tag != '"r0"':
            return answers.not_modified(tag)
    revision, body = await _twin(needs, vehicle_id)
    if wanted is not None:
        body = _projected(body, wanted)
    return answers.document(request, body, etags.of_revision(revision))


@router.delete(
    "/v1/twins/{vehicle_id}",
    summary="Delete a twin",
    status_code=204,
    responses=problems(400, 404, 409, 429, 503, 504),
)
async def delete_twin(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
) -> Response:
    """The twin and everything that belongs to it; a car that still drives makes a new one."""
    _no_condition(request)
    wish = Wish("delete", vehicle_id, {}, key=key, traceparent=trace)
    return answers.decided(await needs.requests.ask(wish), gone=True)


@router.put(
    "/v1/twins/{vehicle_id}/attributes",
    summary="Replace the attributes",
    openapi_extra=body_of(bodies.AttributesBody, bodies.JSON),
    responses=problems(400, 404, 409, 413, 415, 422, 429, 503, 504),
)
async def put_attributes(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
) -> Response:
    """Text by name, e.g. fleet, model, firmware; answers after the owner decided."""
    _no_condition(request)
    value = await bodies.read_attributes(request)
    wish = Wish("attributes", vehicle_id, {"value": value}, key=key, traceparent=trace)
    return answers.decided(await needs.requests.ask(wish))


@router.get(
    "/v1/twins/{vehicle_id}/desired",
    summary="Read what is wanted of a car",
    responses={**_DESIRED, **problems(400, 404, 503, 504)},
)
async def get_desired(
    needs: Needs, vehicle_id: VehicleId, query: Annotated[DesiredQuery, Query()]
) -> Response:
    """Desired properties with their status, and the delta; ETag `"d<version>"` for If-Match.

    Never 304: status and delta change as the car answers, while the version stays.
    """
    await wait_until_visible(needs, query.after)
    _revision, body = await _twin(needs, vehicle_id)
    twin: records.Twin = orjson.loads(body)
    desired = twin["desired"]
    view = shapes.DesiredView(
        version=desired["version"],
        properties=desired["properties"],
        status=desired["status"],
        delta=twin["delta"],
    )
    return answers.fresh(orjson.dumps(view), etags.of_desired(desired["version"]))


@router.patch(
    "/v1/twins/{vehicle_id}/desired",
    summary="Change some of what is wanted",
    openapi_extra=body_of(dict[str, Any], bodies.MERGE_PATCH, bodies.JSON),
    responses={**_DESIRED, **problems(400, 404, 409, 412, 413, 415, 422, 429, 503, 504)},
)
async def patch_desired(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
    if_match: IfMatch = None,
) -> Response:
    """A merge patch (RFC 7396: null removes); answers after the owner decided."""
    value = await bodies.read_desired(request, bodies.MERGE_PATCH, bodies.JSON)
    return await _change_desired(needs, vehicle_id, "patch", value, if_match, key, trace)


@router.put(
    "/v1/twins/{vehicle_id}/desired",
    summary="Replace what is wanted",
    openapi_extra=body_of(dict[str, Any], bodies.JSON),
    responses={**_DESIRED, **problems(400, 404, 409, 412, 413, 415, 422, 429, 503, 504)},
)
async def put_desired(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
    if_match: IfMatch = None,
) -> Response:
    """All desired properties at once; answers after the owner decided."""
    value = await bodies.read_desired(request, bodies.JSON)
    return await _change_desired(needs, vehicle_id, "put", value, if_match, key, trace)


async def _change_desired(
    needs: Services,
    vehicle_id: str,
    op: str,
    value: dict[str, Any],
    if_match: str | None,
    key: str | None,
    trace: str | None,
) -> Response:
    version = etags.desired_version(if_match)
    wish = Wish(
        "desired",
        vehicle_id,
        {"op": op, "value": value},
        if_match=None if version == etags.ANY else version,
        key=key,
        traceparent=trace,
    )
    decision = await needs.requests.ask(wish)
    if version == etags.ANY and decision.reply.get("code") == "twin_not_found":
        raise Problem("version_mismatch", f"If-Match: * and no twin of {vehicle_id} exists")
    headers = {}
    if "version" in decision.reply["body"]:
        headers["ETag"] = etags.of_desired(decision.reply["body"]["version"])
    return answers.decided(decision, headers)


async def _twin(needs: Services, vehicle_id: str) -> tuple[int, bytes]:
    document = await needs.reader.twin(vehicle_id)
    if document is None:
        raise Problem("twin_not_found", f"there is no twin of {vehicle_id}")
    return document


def _projected(body: bytes, wanted: fields.Wanted) -> bytes:
    return orjson.dumps(fields.project(orjson.loads(body), wanted))


def _no_condition(request: Request) -> None:
    """A condition that would be ignored must be refused: its sender relies on it."""
    if "if-match" in request.headers:
        raise Problem("invalid_header", "If-Match is accepted on .../desired only")

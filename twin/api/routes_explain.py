"""Why a value of a twin is as it is."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from twin.api import answers, shapes
from twin.api.documented import problems
from twin.api.parameters import ExplainQuery, VehicleId, wait_until_visible
from twin.api.problems import Problem
from twin.api.services import Needs
from twin.wire.explain import Explanation, explain
from twin.wire.pointer import PathNotFound

router = APIRouter(tags=["twins"])


@router.get(
    "/v1/twins/{vehicle_id}/explain",
    summary="The record, rule or model behind a value",
    responses={
        200: {"model": shapes.shape(Explanation)},
        **problems(400, 404, 503, 504),
    },
)
async def get_explanation(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    query: Annotated[ExplainQuery, Query()],
) -> Response:
    """For every path of the document; 404 says how far the path leads and what there is."""
    await wait_until_visible(needs, query.after)
    found = await needs.reader.twin(vehicle_id)
    if found is None:
        raise Problem("twin_not_found", f"there is no twin of {vehicle_id}")
    try:
        explanation = explain(orjson.loads(found.body), query.path)
    except PathNotFound as error:
        raise Problem("path_not_found", str(error)) from error
    return answers.document(request, orjson.dumps(explanation))

"""Decisions that await approval: somebody says yes or no."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from twin.api import answers, bodies, shapes
from twin.api.documented import body_of, problems
from twin.api.parameters import Key, NoParameters, Traceparent, VehicleId
from twin.api.requests import Wish
from twin.api.services import Needs
from twin.wire import records

router = APIRouter(tags=["decisions"])

_RULE: Final = r"^[a-z][a-z0-9_.-]{0,63}$"


@router.post(
    "/v1/twins/{vehicle_id}/decisions/{rule}",
    summary="Approve or refuse what a rule asks",
    openapi_extra=body_of(bodies.ApprovalBody, bodies.JSON),
    responses={
        200: {"model": shapes.shape(records.Decision), "description": "refused as asked"},
        201: {
            "model": shapes.shape(records.Command),
            "description": "approved: the ledger entry; Location names it",
        },
        **problems(400, 404, 409, 413, 415, 422, 429, 503, 504),
    },
)
async def post_approval(
    request: Request,
    needs: Needs,
    vehicle_id: VehicleId,
    rule: Annotated[str, Path(pattern=_RULE, description="name of the rule")],
    key: Key,
    trace: Traceparent,
    _query: NoParameters,
) -> Response:
    """The interlocks are judged again; 409 names the one that refuses, and the question stays open."""
    body = await bodies.read_approval(request)
    wish = Wish(
        "approval",
        vehicle_id,
        {"rule": rule, "verdict": body.verdict},
        key=key,
        traceparent=trace,
    )
    decision = await needs.requests.ask(wish)
    made = decision.reply["body"].get("id")
    headers = {} if made is None else {"Location": f"/v1/commands/{made}"}
    return answers.decided(decision, headers)

"""Calls of the contract that answer 501 for now: documented, and at their final address."""

from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from twin.api.documented import problems
from twin.api.problems import Problem

router = APIRouter(tags=["not available yet"])

_CALLS: Final = (
    ("GET", "/v1/twins/{vehicle_id}/events", "Changes of a twin as they happen (SSE)"),
    ("GET", "/v1/events", "Changes of the fleet as they happen (SSE)"),
    ("GET", "/v1/twins/{vehicle_id}/history", "A signal over time"),
    ("POST", "/v1/operations", "One action on many vehicles"),
    ("GET", "/v1/operations/{operation_id}", "Progress of an operation"),
    ("POST", "/v1/operations/{operation_id}/pause", "Pause an operation"),
    ("POST", "/v1/operations/{operation_id}/resume", "Resume an operation"),
    ("POST", "/v1/operations/{operation_id}/cancel", "Cancel an operation"),
    ("GET", "/v1/models", "Models: champion, challenger, metrics"),
    ("GET", "/v1/models/{name}", "One model and who runs it"),
)


def _answer(call: str) -> Response:
    raise Problem("not_available_yet", f"{call} is part of the contract and not available yet")


def _add(method: str, path: str, summary: str) -> None:
    async def later() -> Response:
        return _answer(f"{method} {path}")

    router.add_api_route(
        path,
        later,
        methods=[method],
        summary=summary,
        name=f"later {method} {path}",
        operation_id=f"later_{method}_{path}".lower().translate(str.maketrans("/{}", "___")),
        status_code=501,
        response_description="not available yet",
        responses=problems(501),
    )


for _method, _path, _summary in _CALLS:
    _add(_method, _path, _summary)

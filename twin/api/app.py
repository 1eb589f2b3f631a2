"""The ASGI application: routes, and every error as a problem+json document."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from twin.api import (
    answers,
    documented,
    page,
    routes_commands,
    routes_decisions,
    routes_explain,
    routes_fleet,
    routes_later,
    routes_process,
    routes_rejected,
    routes_twins,
)
from twin.api.middleware import Observe
from twin.api.problems import Problem
from twin.api.reader import StoreUnavailable
from twin.api.request_log import LogUnavailable
from twin.api.services import Services
from twin.kit import logs
from twin.wire.errors import WireError

log = logs.get(__name__)

_ROUTES = (
    routes_twins,
    routes_explain,
    routes_commands,
    routes_decisions,
    routes_fleet,
    routes_rejected,
    routes_later,
    routes_process,
    page,
)

Opener = Callable[[], AbstractAsyncContextManager[Services]]


def create_app(opener: Opener) -> FastAPI:
    """The application; `opener` gives what its routes need for as long as it runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opener() as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="cartwin",
        version="1",
        summary="Digital twins of connected cars",
        description="Errors are application/problem+json (RFC 9457) with a stable `code`"
        " (GET /v1/problems). Times are ms since 1970. Every write answers after the twin's owner"
        " decided and returns a `Cartwin-Token`; reads take it as `after=`.",
        lifespan=lifespan,
        # The framework's own page loads scripts from elsewhere; /docs is ours (`page`).
        docs_url=None,
        redoc_url=None,
        exception_handlers=_HANDLERS,
    )
    for module in _ROUTES:
        app.include_router(module.router)
    app.add_middleware(Observe)
    app.openapi = partial(documented.document, app)  # type: ignore[method-assign]
    return app


def _refused(request: Request, error: Exception) -> Response:
    return answers.problem(cast(Problem, error), request.url.path)


def _bad_wire(request: Request, error: Exception) -> Response:
    fault = cast(WireError, error)
    return answers.problem(Problem(fault.reason, fault.detail, status=400), request.url.path)


def _no_store(request: Request, error: Exception) -> Response:
    # Readiness logs that Redis is away, once; here it would be a line for every read.
    log.debug("read model away", error=str(error))
    detail = "the read model (Redis) does not answer; try again"
    refusal = Problem("store_unavailable", detail, headers={"Retry-After": "1"})
    return answers.problem(refusal, request.url.path)


def _no_log(request: Request, error: Exception) -> Response:
    refusal = Problem("log_unavailable", str(error)[:300], headers={"Retry-After": "1"})
    return answers.problem(refusal, request.url.path)


def _http(request: Request, error: Exception) -> Response:
    fault = cast(HTTPException, error)
    path = request.url.path[:200]
    if fault.status_code == 404:
        refusal = Problem("not_found", f"there is nothing at {path}; /openapi.json lists all calls")
    elif fault.status_code == 405:
        allowed = (fault.headers or {}).get("Allow", "")
        refusal = Problem(
            "method_not_allowed",
            f"{request.method} is not accepted at {path}; accepted: {allowed}",
            headers=fault.headers,
        )
    else:
        refusal = Problem("invalid_parameter", str(fault.detail), status=fault.status_code)
    return answers.problem(refusal, request.url.path)


def _invalid(request: Request, error: Exception) -> Response:
    faults = []
    for fault in cast(RequestValidationError, error).errors():
        where, name = str(fault["loc"][0]), ".".join(str(part) for part in fault["loc"][1:])
        text = fault["msg"][0].lower() + fault["msg"][1:]
        if fault["type"] == "extra_forbidden":
            text = f"is not known here; accepted: {', '.join(_accepted(request)) or 'none'}"
        else:
            text += f" (got {str(fault.get('input'))[:80]!r})"
        faults.append({"in": where, "name": name[:80], "detail": text})
    detail = "; ".join(f"{f['in']} parameter {f['name']}: {f['detail']}" for f in faults)
    refusal = Problem("invalid_parameter", detail[:1000], members={"errors": faults[:20]})
    return answers.problem(refusal, request.url.path)


def _accepted(request: Request) -> list[str]:
    """Query parameters that the route documents."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    route = request.scope["route"].path
    described = paths[route][request.method.lower()].get("parameters", [])
    return [parameter["name"] for parameter in described if parameter["in"] == "query"]


_HANDLERS: dict[Any, Any] = {
    Problem: _refused,
    WireError: _bad_wire,
    StoreUnavailable: _no_store,
    LogUnavailable: _no_log,
    HTTPException: _http,
    RequestValidationError: _invalid,
}

"""Around every request: HEAD as GET without a body, metrics by route, and the last resort.

The label is the route's template, never the path, so a client cannot make new time series. An
error that nobody expected becomes a plain problem for the client and a log line for us.
"""

import time
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twin.api import answers
from twin.api.problems import Problem
from twin.kit import logs, metrics

log = logs.get(__name__)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observe:
    """ASGI middleware; the outermost of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        # The server drops the body of an answer to HEAD by itself.
        inner = {**scope, "method": "GET"} if method == "HEAD" else {**scope}
        started = time.perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(inner, receive, note)
        except Exception:
            log.exception("request failed", method=method, path=scope["path"][:200])
            if status:
                raise  # too late for an answer; the server cuts the connection
            failed = Problem("internal_error", "an unexpected error; the log of the API names it")
            await answers.problem(failed, scope["path"])(Request(scope).scope, receive, note)
        finally:
            route = getattr(inner.get("route"), "path", "none")
            metrics.API_REQUESTS.labels(method, route, str(status)).inc()
            metrics.API_SECONDS.labels(method, route).observe(time.perf_counter() - started)

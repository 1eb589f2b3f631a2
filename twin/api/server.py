"""`python -m twin api`: one HTTP server in front of the application."""

import signal
from functools import partial
from types import FrameType

import uvicorn

from twin.api.app import create_app
from twin.api.services import open_services
from twin.api.settings import ApiSettings
from twin.kit import logs

_DRAIN_S = 8
"""Requests in flight get this long at the end; a decision takes 5 s at most."""


def main() -> int:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; returns the exit code."""
    settings = ApiSettings.load()
    logs.configure("api", settings.log_level, settings.log_format)
    # uvicorn hands a signal on after its graceful stop: that is an end without fault.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(partial(open_services, settings)),
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )
    server.run()
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)

"""`python -m twin api`: one HTTP server in front of the application.

Both ports are taken before the server starts: a taken one is a sentence and not a failure of the
running application, and no other process can come between the check and the use.
"""

import signal
import socket
from contextlib import closing
from functools import partial
from types import FrameType

import uvicorn

from twin.api.app import create_app
from twin.api.readiness import Readiness
from twin.api.services import open_services
from twin.api.settings import ApiSettings
from twin.kit import logs
from twin.kit.health import HealthServer
from twin.wire.errors import CartwinError

log = logs.get(__name__)

_DRAIN_S = 8
"""Requests in flight get this long at the end; a decision takes 5 s at most."""
_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than proxies and clients keep an idle connection (60 s and less): whoever closes first must not
be the one who is just being asked."""


class ApiAddressUnusable(CartwinError):
    """The address is taken, or is not one of this machine."""


def main() -> int:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; returns the exit code."""
    settings = ApiSettings.load()
    logs.configure("api", settings.log_level, settings.log_format)
    # uvicorn hands a signal on after its graceful stop: that is an end without fault.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    readiness = Readiness()
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(partial(open_services, settings, readiness)),
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )
    try:
        with (
            closing(_listen(settings.api_host, settings.api_port)) as listener,
            closing(HealthServer(settings.health_host, settings.health_port, readiness.faults)),
        ):
            host, port = listener.getsockname()[:2]
            log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
            server.run(sockets=[listener])
    except CartwinError as error:
        log.error("cannot start", error=str(error))
        return 1
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; what connects before the server runs waits in its queue."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it a body waits 40 ms for
    # the client's acknowledgement of its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise ApiAddressUnusable(f"API_HOST and API_PORT {host}:{port}: {reason}") from error
    return listener


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)

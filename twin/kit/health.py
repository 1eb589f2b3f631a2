"""/livez, /readyz and /metrics of a process that has no web server of its own.

A thread serves them, so a busy or blocked main loop shows up as not ready instead of as silence:
`ready` is a function that the process gives, called for every request.
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from twin.wire.errors import CartwinError

Checks = Callable[[], dict[str, str]]
"""What is not ready and why; empty = ready."""


class HealthAddressUnusable(CartwinError):
    """The address is taken, or is not one of this machine."""


class HealthServer:
    """Serve health of this process until closed; raises `HealthAddressUnusable`. Port 0: nothing."""

    def __init__(self, host: str, port: int, not_ready: Checks) -> None:
        self._server: ThreadingHTTPServer | None = None
        if port:
            try:
                self._server = ThreadingHTTPServer((host, port), _handler(not_ready))
            except (OSError, UnicodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise HealthAddressUnusable(
                    f"HEALTH_HOST and HEALTH_PORT {host}:{port}: {reason}"
                ) from error
            self._server.daemon_threads = True
            threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _handler(not_ready: Checks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/livez":
                self._answer(200, b'{"status":"alive"}', "application/json")
            elif self.path == "/readyz":
                faults = not_ready()
                body = orjson.dumps({"status": "not ready" if faults else "ready", "why": faults})
                self._answer(503 if faults else 200, body, "application/json")
            elif self.path == "/metrics":
                self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
            else:
                self._answer(404, b"/livez, /readyz and /metrics are here\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Health probes are not worth a log line."""

    return Handler

"""A schema registry over HTTP, as far as its public API says what we use of it.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

FIRST_ID = 100_017


class FakeRegistry(ThreadingHTTPServer):
    """Its content, and what was asked of it. `fault`: (HTTP status, text) of every answer, if any."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.schemas: dict[int, str] = {}
        self.subjects: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.fault: tuple[int, str] | None = None
        self.user: str | None = None
        """`name:password` that must be told."""

    def add(self, subject: str, text: str) -> int:
        """Register a schema; the same text has the same id under every subject."""
        known = {_canonical(schema): number for number, schema in self.schemas.items()}
        number = known.get(_canonical(text), FIRST_ID + len(self.schemas))
        self.schemas.setdefault(number, text)
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """One that answers until the end."""
    server = FakeRegistry()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET", "")

    def do_POST(self) -> None:
        self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, method: str, body: str) -> None:
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.server.asked.append(f"{method} {'/'.join(path)}")
        status, said = self._said(method, path, body)
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _said(self, method: str, path: list[str], body: str) -> tuple[int, object]:
        server = self.server
        if server.fault is not None:
            status, text = server.fault
            return status, {"error_code": status * 100 + 1, "message": text}
        if server.user is not None:
            told = f"Basic {base64.b64encode(server.user.encode()).decode()}"
            if self.headers["Authorization"] != told:
                return 401, {"error_code": 401, "message": "Unauthorized"}
        if (method, path[:2]) == ("GET", ["schemas", "ids"]):
            text = server.schemas.get(int(path[2]))
            if text is None:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            return 200, {"schema": text}
        subject, text = path[1], json.loads(body)["schema"]
        if path[2:] == ["versions"]:
            return 200, {"id": server.add(subject, text)}
        if subject not in server.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        for version, number in enumerate(server.subjects[subject], 1):
            if _canonical(server.schemas[number]) == _canonical(text):
                said = {"subject": subject, "version": version, "id": number, "schema": text}
                return 200, said
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nobody reads it."""


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)

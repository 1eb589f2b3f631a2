"""HTTP answers: JSON with ETag and 304, problems, and the owner's reply as a response."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from fastapi import Request
from fastapi.responses import Response

from twin.api import etags
from twin.api.documented import PROBLEM
from twin.api.problems import Problem
from twin.api.requests import Decision
from twin.api.tokens import Token

JSON: Final = "application/json"
TOKEN_HEADER: Final = "Cartwin-Token"  # noqa: S105 - a header's name
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def document(request: Request, body: bytes, etag: str | None = None) -> Response:
    """200 with an ETag (of the content, when none is given), or 304 when the client has it."""
    tag = etag or etags.of_content(body)
    if etags.none_match_hits(request.headers.get("if-none-match"), tag):
        return not_modified(tag)
    return Response(body, media_type=JSON, headers={**_HEADERS, "ETag": tag})


def fresh(body: bytes, etag: str) -> Response:
    """200 that no cache may keep; the ETag is for If-Match."""
    headers = {**_HEADERS, "Cache-Control": "no-store", "ETag": etag}
    return Response(body, media_type=JSON, headers=headers)


def not_modified(etag: str) -> Response:
    """304: the client's copy is current."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "no-cache"})


def page(items: Iterable[bytes], next_cursor: str | None) -> bytes:
    """A list's body from items that are JSON already."""
    cursor = orjson.dumps(next_cursor)
    return b'{"items":[' + b",".join(items) + b'],"next_cursor":' + cursor + b"}"


def problem(refusal: Problem, instance: str) -> Response:
    """A refusal as application/problem+json."""
    return Response(
        orjson.dumps(refusal.document(instance)),
        status_code=refusal.status,
        media_type=PROBLEM,
        headers={**_HEADERS, **refusal.headers},
    )


def decided(
    decision: Decision, headers: Mapping[str, str] | None = None, *, gone: bool = False
) -> Response:
    """The owner's answer: its status, body and token. Raises `Problem` when it is a refusal.

    `gone`: the token shall wait for the twin's absence.
    """
    reply = decision.reply
    status = reply["status"]
    if status >= 400:
        raise Problem(
            reply.get("code", "bad_request"),
            reply.get("detail", "the twin's owner refused"),
            status=status,
            members=reply["body"],
            headers={"Retry-After": "1"} if status in (429, 503) else {},
        )
    body: dict[str, Any] = reply["body"]
    token = Token(reply["vehicle_id"], reply["revision"], gone=gone)
    return Response(
        None if status == 204 else orjson.dumps(body),
        status_code=status,
        media_type=None if status == 204 else JSON,
        headers={
            **_HEADERS,
            TOKEN_HEADER: token.encode(),
            **({"Idempotency-Replayed": "true"} if decision.repeated else {}),
            **(headers or {}),
        },
    )

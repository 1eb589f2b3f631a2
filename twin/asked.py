"""Keyed requests that were accepted: under one request id there is one decision, however often asked.

The request id of a keyed request follows from vehicle and key, and its reply is stored under it for
24 h; here is what a repetition needs that comes before that reply is there, or after it was lost. It
changes nothing and gets the first decision, with what it was about as it is now. When it carries another
body it gets the same, under the first one's hash, so that no reply is overwritten by a conflict: who
asked for something else sees from the hash that the decision is not about it.

A refusal changed nothing and is not remembered; asked again, it is decided again.
"""

from typing import Final

from twin.wire.records import Asked, Request, Twin

ASKED: Final = 16
"""Remembered per twin; the stored replies answer for older ones."""
WINDOW_MS: Final = 86_400_000


def find(twin: Twin, request: Request, at: int) -> Asked | None:
    """The first request under this id, if it was accepted within the last 24 h."""
    first = twin.get("asked", {}).get(request["request_id"])
    return first if first is not None and at - first["at"] < WINDOW_MS else None


def remember(
    twin: Twin, request: Request, status: int, at: int, offset: int, ref: str | None
) -> None:
    """Keep an accepted request that carries a key; `ref` is the command or rule it was about."""
    if "idempotency_key" not in request:
        return
    asked = Asked(
        kind=request["kind"], hash=request.get("body_hash", ""), status=status, at=at, o=offset
    )
    if ref is not None:
        asked["ref"] = ref
    known = twin.get("asked", {})
    latest = {**{key: one for key, one in known.items() if key != request["request_id"]}}
    latest[request["request_id"]] = asked
    twin["asked"] = dict(list(latest.items())[-ASKED:])

"""Rejected records driven again: what such a record says, and what is sent where. Pure.

A message of a car (`mqtt:<topic>`) goes to topic `redrive`, which the uplink reads: it judges the message
once more, as of the time when it first arrived. A record of a Kafka topic goes there again with its own
headers. Either way `attempts` goes along, so what fails again comes back with one more, and `redriven-by`
says who did it. Nothing is taken from `rejected`: twins apply a repeated record once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from twin.wire import topics
from twin.wire.errors import CartwinError
from twin.wire.rejected import Headers, attempts

MQTT: Final = "mqtt:"
KAFKA: Final = "kafka:"
ORIGINAL: Final = "original-"
SOURCES: Final = frozenset(
    {
        topics.TELEMETRY,
        topics.PRESENCE,
        topics.REPORTED,
        topics.OUTCOMES,
        topics.REQUESTS,
        topics.SCORES,
        topics.DELIVERIES,
        topics.DOWNLINK,
    }
)
"""Kafka topics whose readers reject; changelogs and what is derived are written by their owners only."""
_KEPT: Final = ("source", "attempts", "content-type", "ingested-at", "shard")


class NotRedrivable(CartwinError):
    """The record cannot be driven again as it is; the message says why."""


class Rejected(NamedTuple):
    """What the headers of a record of `rejected` say. Times in ms; empty or 0 where one says nothing."""

    reason: str
    detail: str
    source: str
    attempts: int
    ingested_at: int
    content_type: str | None
    truncated: int
    """Length of the original in bytes when its value was cut, else 0."""
    headers_truncated: int
    shard: int
    """Number of the broker that a message of a car came from."""
    redriven_by: str | None
    originals: Headers
    """The original's own headers."""


@dataclass(frozen=True, slots=True)
class Again:
    """A record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def read(headers: Iterable[tuple[str, bytes | None]]) -> Rejected:
    """Never fails: whoever may write to the topic may write anything."""
    found: dict[str, bytes] = {}
    originals: Headers = []
    for name, content in headers:
        if name.startswith(ORIGINAL):
            originals.append((name.removeprefix(ORIGINAL), content or b""))
        else:
            found[name] = content or b""
    texts = {name: content.decode(errors="replace") for name, content in found.items()}
    return Rejected(
        reason=texts.get("reason", ""),
        detail=texts.get("detail", ""),
        source=texts.get("source", ""),
        attempts=max(1, attempts(found.get("attempts"))),
        ingested_at=_number(found.get("ingested-at")),
        content_type=texts.get("content-type"),
        truncated=_number(found.get("truncated")),
        headers_truncated=_number(found.get("headers-truncated")),
        shard=_number(found.get("shard")),
        redriven_by=texts.get("redriven-by"),
        originals=originals,
    )


def again(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    *,
    by: str,
    changed: bool = False,
) -> Again:
    """What drives a record of `rejected` again; `changed`: `value` is not the original's.

    Raises `NotRedrivable`.
    """
    kept = [(name, content or b"") for name, content in headers]
    told = read(kept)
    if told.truncated and not changed:
        raise NotRedrivable(
            f"only the beginning of its {told.truncated} bytes was kept; give the whole message as value"
        )
    who = ("redriven-by", by.encode())
    if told.source.startswith(MQTT):
        ours = [header for header in kept if header[0] in _KEPT or header[0].startswith(ORIGINAL)]
        return Again(topics.REDRIVE, key, value, [*ours, who])
    topic = told.source.removeprefix(KAFKA).partition("/")[0]
    if not told.source.startswith(KAFKA) or topic not in SOURCES:
        raise NotRedrivable(
            f"its source {told.source[:120]!r} is none that records can be sent to again: mqtt:<topic>,"
            f" or kafka:<topic>/<partition>/<offset> of {', '.join(sorted(SOURCES))}"
        )
    count = ("attempts", b"%d" % told.attempts)
    return Again(topic, key, value, [*told.originals, count, who])


def _number(content: bytes | None) -> int:
    text = content or b""
    return int(text) if text.isdigit() and len(text) <= 18 else 0

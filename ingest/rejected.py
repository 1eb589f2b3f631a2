"""Records for the topic `rejected`: the original bytes and why they were not accepted. Pure.

Key = vehicle id where it is known; headers: reason (public code), detail (one sentence), source
(`mqtt:<topic>` or `kafka:<topic>/<partition>/<offset>`), attempts, ingested-at (ms), content-type,
and the headers of the original record, prefixed. Shared by uplink and downlink.
"""

from typing import Final, NamedTuple

from twin.wire import topics
from twin.wire.errors import WireError

_DETAIL_CHARS: Final = 500
_CONTENT_TYPE_CHARS: Final = 200


Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers


def rejection(
    error: WireError,
    *,
    value: bytes,
    vehicle_id: str | None,
    source: str,
    ingested_at: int,
    content_type: str | None = None,
    original: Headers | None = None,
) -> Record:
    """The `rejected` record for a message of first attempt that raised `error`."""
    headers: Headers = [
        ("reason", error.reason.encode()),
        ("detail", _bytes(error.detail[:_DETAIL_CHARS])),
        ("source", _bytes(source)),
        ("attempts", b"1"),
        ("ingested-at", str(ingested_at).encode()),
    ]
    if content_type is not None:
        headers.append(("content-type", _bytes(content_type[:_CONTENT_TYPE_CHARS])))
    headers += [(f"original-{name}", content) for name, content in original or []]
    key = None if vehicle_id is None else vehicle_id.encode()
    return Record(topics.REJECTED, key, value, headers)


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")

"""Messages that are not accepted, as records for the topic `rejected`. Pure.

Shared by uplink and downlink; `twin.wire.rejected` says what such a record holds.
"""

from collections.abc import Iterable
from typing import NamedTuple

from twin.wire import rejected, topics
from twin.wire.errors import WireError
from twin.wire.rejected import Headers


class Record(NamedTuple):
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def rejection(
    error: WireError,
    *,
    source: str,
    at_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, str | bytes | None]] = (),
    content_type: str | None = None,
    shard: int | None = None,
    whole_bytes: int = 0,
) -> Record:
    """The record for a message that raised `error`; arguments as for `twin.wire.rejected.record`."""
    vehicle_id, kept, made = rejected.record(
        error=error,
        source=source,
        at_ms=at_ms,
        key=key,
        value=value,
        headers=headers,
        content_type=content_type,
        shard=shard,
        whole_bytes=whole_bytes,
    )
    return Record(topics.REJECTED, None if vehicle_id is None else vehicle_id.encode(), kept, made)

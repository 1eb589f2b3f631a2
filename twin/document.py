"""The twin document to and from bytes: the public JSON of design section 6, made from columns.

    Twin -> dump -> {"vehicle_id": .., "reported": {signal: {v, t, n, s, o[, q]}}, ..} -> load -> Twin

The worker keeps its twins in another form, `twin.packed`, which makes the same document.
"""

import orjson

from twin.reported import Reported
from twin.wire.errors import Malformed
from twin.wire.records import SignalValue, Twin


def dump(twin: Twin) -> bytes:
    """The document as it is stored and shown. Its numbers must be finite."""
    return orjson.dumps(twin, default=_plain)


def load(data: bytes) -> Twin:
    """The twin behind the bytes of a document. Raises `Malformed` when they are none."""
    try:
        twin: Twin = orjson.loads(data)
        twin["reported"] = Reported.of(twin["reported"])
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error
    return twin


def _plain(value: object) -> dict[str, SignalValue]:
    if not isinstance(value, Reported):
        raise TypeError(f"{type(value).__name__} is no part of a document")
    return dict(value)

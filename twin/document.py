"""The twin document to and from bytes: the public JSON of design section 6, made from columns.

    Twin -> dump -> {"vehicle_id": .., "reported": {signal: {v, t, n, s, o[, q]}}, ..} -> load -> Twin

No entry is made for a signal (`wire.columnar`). The worker keeps its twins in another form,
`twin.packed`, which makes the same JSON.
"""

import orjson

from twin.reported import Group, Reported
from twin.wire.columnar import Column, members, origin
from twin.wire.errors import Malformed
from twin.wire.records import Twin


def dump(twin: Twin) -> bytes:
    """The document as it is stored and shown. Its numbers must be finite."""
    return orjson.dumps(twin, default=_fragment)


def load(data: bytes) -> Twin:
    """The twin behind the bytes of a document. Raises `Malformed` when they are none."""
    try:
        twin: Twin = orjson.loads(data)
        twin["reported"] = Reported.of(twin["reported"])
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error
    return twin


def column(group: Group) -> Column:
    """A group as it is written."""
    if group.suspect:
        return Column((), orjson.dumps(dict(Reported([group])))[1:-1], b"")
    return Column(group.names, text_of(group.values), origin(group.t, group.n, group.s, group.o))


def text_of(values: tuple[float, ...]) -> bytes:
    """Values as JSON, joined by commas."""
    return orjson.dumps(values)[1:-1]


def _fragment(value: object) -> orjson.Fragment:
    if not isinstance(value, Reported):
        raise TypeError(f"{type(value).__name__} is no part of a document")
    return orjson.Fragment(b"{%b}" % members(map(column, value.groups)))

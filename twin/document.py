"""The twin document to and from bytes: the public JSON of design section 6, made from columns.

    Twin -> dump -> {"vehicle_id": .., "reported": {signal: {v, t, n, s, o[, q]}}, ..} -> load -> Twin

Every changed twin of a batch is dumped, and most of its bytes are the same origin (t, n, s, o) behind
each signal: it is made once per group and joined with the values, no entry is made for a signal.
"""

from functools import lru_cache
from typing import cast

import orjson

from twin.interning import intern_parts
from twin.reported import Group, Reported
from twin.wire.errors import Malformed
from twin.wire.records import Twin


def dump(twin: Twin) -> bytes:
    """The document as it is stored and shown. Its numbers must be finite."""
    return orjson.dumps(twin, default=_fragment)


def load(data: bytes) -> Twin:
    """The twin behind `dump`'s bytes. Raises `Malformed` when they are no document."""
    try:
        fields = orjson.loads(data)
        # Filled anew a dict of this size is a third smaller than the parser's.
        twin = cast(Twin, dict(fields.items()))
        twin["reported"] = Reported.of(twin["reported"])
        intern_parts(twin)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error
    return twin


def _fragment(value: object) -> orjson.Fragment:
    if not isinstance(value, Reported):
        raise TypeError(f"{type(value).__name__} is no part of a document")
    parts = [b"{"]
    for group in value.groups:
        parts += _members(group)
    parts[-1] = parts[-1].rstrip(b",") + b"}"
    return orjson.Fragment(b"".join(parts))


def _members(group: Group) -> list[bytes]:
    """`"signal":{"v":..,"t":..},..` of a group, in parts."""
    if group.suspect:
        return [orjson.dumps(dict(Reported([group])))[1:-1], b","]
    beginnings = _beginnings(group.names)
    origin = b',"t":%d,"n":%d,"s":%d,"o":%d},' % (group.t, group.n, group.s, group.o)
    parts = [origin] * (3 * len(beginnings))
    parts[::3] = beginnings
    parts[1::3] = orjson.dumps(group.values)[1:-1].split(b",")
    return parts


@lru_cache(maxsize=1024)
def _beginnings(names: tuple[str, ...]) -> list[bytes]:
    """What precedes the value of each signal."""
    return [b'%b:{"v":' % orjson.dumps(name) for name in names]

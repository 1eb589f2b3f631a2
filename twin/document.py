"""The twin document to and from bytes: the public JSON of design section 6, made from columns.

    Twin -> dump -> {"vehicle_id": .., "reported": {signal: {v, t, n, s, o[, q]}}, ..} -> load -> Twin

Every changed twin of a batch is dumped, and most of its bytes are the same origin (t, n, s, o) behind
each signal: it is made once per group and joined with the values, no entry is made for a signal. What
telemetry does not touch is kept as bytes with the twin, and used as long as its parts are the same
objects: parts are replaced and never changed (`twin.state`), and to look at some thousand bytes' worth
of objects of one in 100,000 twins is mostly waiting for memory.
"""

from functools import lru_cache
from operator import is_
from typing import Any, Final, cast

import orjson

from twin.interning import intern_parts
from twin.reported import Group, Reported
from twin.wire.errors import Malformed
from twin.wire.records import Twin

MOVING: Final = (
    "epoch", "vehicle_id", "revision", "created_at", "updated_at",
    "presence", "applied", "counts", "reported",
)  # fmt: skip
"""What a telemetry record may change; made anew each time."""
KEPT: Final = (
    "attributes", "config", "desired", "delta", "health", "commands",
    "confirmed", "decisions", "causes", "asked",
)  # fmt: skip


class Document(dict[str, Any]):
    """A twin that remembers the JSON of its parts that telemetry does not touch.

    `parts` are those objects, `tail` their JSON; `memo` is for readers who derive something of `parts`.
    """

    __slots__ = ("memo", "parts", "tail")

    def __init__(self, fields: Any) -> None:
        super().__init__(fields)
        self.parts: tuple[Any, ...] = ()
        self.tail = b""
        self.memo: Any = None


def dump(twin: Twin) -> bytes:
    """The document as it is stored and shown. Its numbers must be finite."""
    if type(twin) is not Document:
        return orjson.dumps(twin, default=_fragment)
    get = twin.get
    parts = tuple(map(get, KEPT))
    if len(twin.parts) != len(parts) or not all(map(is_, parts, twin.parts)):
        twin.parts = parts
        present = {name: part for name, part in zip(KEPT, parts, strict=True) if part is not None}
        twin.tail = orjson.dumps(present)[1:]
    counts = get("counts")
    return (
        b'{"epoch":%d,"vehicle_id":"%b","revision":%d,"created_at":%d,"updated_at":%d,'
        b'"presence":%b,"applied":%b,%b"reported":%b,%b'
        % (
            twin["epoch"],
            twin["vehicle_id"].encode(),
            twin["revision"],
            twin["created_at"],
            twin["updated_at"],
            orjson.dumps(twin["presence"]),
            orjson.dumps(twin["applied"]),
            b"" if counts is None else b'"counts":%b,' % orjson.dumps(counts),
            _reported(twin["reported"]),
            twin.tail,
        )
    )


def load(data: bytes) -> Twin:
    """The twin behind `dump`'s bytes. Raises `Malformed` when they are no document."""
    try:
        fields = orjson.loads(data)
        # Filled anew a dict of this size is a third smaller than the parser's.
        twin = cast(Twin, Document(fields.items()))
        twin["reported"] = Reported.of(twin["reported"])
        intern_parts(twin)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error
    return twin


def _fragment(value: object) -> orjson.Fragment:
    if not isinstance(value, Reported):
        raise TypeError(f"{type(value).__name__} is no part of a document")
    return orjson.Fragment(_reported(value))


def _reported(reported: Reported) -> bytes:
    parts = [b"{"]
    for group in reported.groups:
        parts += _members(group)
    parts[-1] = parts[-1].rstrip(b",") + b"}"
    return b"".join(parts)


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

"""Signals of a document in columns, as the view stores them (`twin.packed` writes it so).

    {"epoch":..,"reported":{ NUL ["speed","coolant_temp"] SOH 21.5,90 SOH ,"t":..,"n":..,"s":..,"o":..} ..

Most of a document is the same origin (t, n, s, o) behind each signal of a record. So what came in one
record is one column: names, values and the origin, once. Written like this a document has less than two
thirds of its length. Signals that are not so regular are members of JSON. JSON has no control
characters, so nothing needs to be escaped, and a text without any is the document.
"""

from functools import lru_cache
from typing import Final

import orjson

_PIECE: Final = b"\x00"
_FIELD: Final = b"\x01"


def document_of(text: bytes) -> bytes:
    """The document behind what is stored, byte by byte as it was dumped."""
    beginning, *pieces = text.split(_PIECE)
    if not pieces:
        return beginning
    return b"%b%b}}" % (beginning, b",".join(map(_members, pieces)))


def _members(piece: bytes) -> bytes:
    """`"signal":{"v":..,"t":..},..`"""
    if not piece.startswith(b"["):
        return piece
    names, values, origin = piece.split(_FIELD)
    beginnings = _beginnings(names)
    parts = [origin + b","] * (3 * len(beginnings))
    parts[::3] = beginnings
    parts[1::3] = values.split(b",")
    parts[-1] = origin
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _beginnings(names: bytes) -> list[bytes]:
    """What precedes the value of each signal."""
    return [b'%b:{"v":' % orjson.dumps(name) for name in orjson.loads(names)]

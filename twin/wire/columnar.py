"""Signals of a document in columns: as they are dumped, and as the view stores them.

    {"epoch":..,"reported":{ NUL ["speed","coolant_temp"] SOH 21.5,90 SOH ,"t":..,"n":..,"s":..,"o":..} ..

Most of a document is the same origin (t, n, s, o) behind each signal of a record. So what came in one
record is one `Column`: names, values and the origin, once. Written like this (`stored`) a document has
less than two thirds of its length. Signals that are not so regular are members of JSON. JSON has no
control characters, so nothing needs to be escaped, and a text without any is the document.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

_PIECE: Final = b"\x00"
_FIELD: Final = b"\x01"


class Column(NamedTuple):
    """Signals of one record. `values`: JSON, joined by commas; `origin`: what follows on each of them.

    Without an origin `values` are members of JSON, `"signal":{..},..`.
    """

    names: tuple[str, ...]
    values: bytes
    origin: bytes


def origin(t: int, n: int, s: int, o: int) -> bytes:
    """What follows on the value of each signal that came in a record."""
    return b',"t":%d,"n":%d,"s":%d,"o":%d}' % (t, n, s, o)


def document(beginning: bytes, columns: Iterable[Column]) -> bytes:
    """A document that is `beginning` (up to the signals), its signals, and `}}`."""
    return b"%b%b}}" % (beginning, members(columns))


def members(columns: Iterable[Column]) -> bytes:
    """`"signal":{"v":..,"t":..},..`"""
    found = [
        _members(_beginnings(names), values, origin) if origin else values
        for names, values, origin in columns
    ]
    return found[0] if len(found) == 1 else b",".join(found)


def stored(beginning: bytes, columns: Iterable[Column]) -> bytes:
    """The same document, as the view stores it."""
    pieces = [
        b"%b\x01%b\x01%b" % (_listed(names), values, origin) if origin else values
        for names, values, origin in columns
    ]
    return _PIECE.join((beginning, *pieces)) if pieces else beginning + b"}}"


def document_of(text: bytes) -> bytes:
    """The document, byte by byte as it was."""
    beginning, *pieces = text.split(_PIECE)
    if not pieces:
        return beginning
    return b"%b%b}}" % (beginning, b",".join(map(_piece, pieces)))


def _piece(piece: bytes) -> bytes:
    if not piece.startswith(b"["):
        return piece
    names, values, origin = piece.split(_FIELD)
    return _members(_beginnings_of(names), values, origin)


def _members(beginnings: list[bytes], values: bytes, origin: bytes) -> bytes:
    parts = [origin + b","] * (3 * len(beginnings))
    parts[::3] = beginnings
    parts[1::3] = values.split(b",")
    parts[-1] = origin
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _listed(names: tuple[str, ...]) -> bytes:
    return orjson.dumps(names)


@lru_cache(maxsize=1024)
def _beginnings(names: tuple[str, ...]) -> list[bytes]:
    """What precedes the value of each signal."""
    return [b'%b:{"v":' % orjson.dumps(name) for name in names]


@lru_cache(maxsize=1024)
def _beginnings_of(names: bytes) -> list[bytes]:
    return _beginnings(tuple(orjson.loads(names)))

"""One twin as the view shows it: its document, and what the index has of it. Pure.

A `Row` is made when the document is dumped: the next batch is decided while this one is being told.
"""

from typing import Final

import orjson

from twin.native.index import Index
from twin.packed import Row, Standing, Version
from twin.wire import keys
from twin.wire.catalogue import INDEXED

__all__ = ["INDEX", "Row", "beginning", "ending"]

INDEX: Final = Index(INDEXED, tuple(keys.LAG[name] for name in (*INDEXED, keys.LAST_SEEN)))
"""What orders have of a twin."""


def beginning(version: Version) -> bytes:
    """The first bytes of a twin's value of this version."""
    return b"[%d,%d,%d," % version


def ending(standing: Standing) -> bytes:
    """The rest of the head."""
    return orjson.dumps(standing[:5])[1:] + b"\n"

"""Changelog records back into what they say: whose state it is, and its values. Pure.

Each framework wraps keys and values in its own way; the state inside is one of two documents.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

Reported = dict[str, tuple[float, int, int, int]]
"""Signal -> value, event time, session, sequence."""
Form = Callable[[bytes], Reported]


def peer(value: bytes) -> Reported:
    """`{"reported": {signal: [value, event_time, session, sequence]}}` (peers/peer_fold.py)."""
    reported: dict[str, list[Any]] = orjson.loads(value)["reported"]
    return {name: (entry[0], entry[1], entry[2], entry[3]) for name, entry in reported.items()}


def cartwin(value: bytes) -> Reported:
    """The public twin document on `twins`."""
    reported: dict[str, dict[str, Any]] = orjson.loads(value)["reported"]
    return {name: (e["v"], e["t"], e["n"], e["s"]) for name, e in reported.items()}


PEER: Final[Form] = peer
CARTWIN: Final[Form] = cartwin


def vehicle_of(key: bytes) -> str:
    """The vehicle of a changelog key: `car-1`, `"car-1"` (Faust) or `car-1|"twin"` (Quix)."""
    return key.partition(b"|")[0].strip(b'"').decode()

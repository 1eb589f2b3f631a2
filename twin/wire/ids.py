"""Identifiers: whose message it is, and ids that a replay makes again unchanged."""

import hashlib
import re

from ulid import ULID

from twin.wire.errors import Misaddressed

RESERVED = frozenset({"sensor"})
"""Not allowed as a vehicle id: `vehicles/sensor/data/{id}` is the replaced demo's topic."""

MAX_VEHICLE_ID = 64
"""Characters."""

_VEHICLE_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_VEHICLE_ID}}}", re.ASCII)


def check_vehicle_id(text: object) -> str:
    """The id itself; raises `Misaddressed` (reason bad_vehicle_id) naming what is accepted."""
    if isinstance(text, str) and _VEHICLE_ID.fullmatch(text) and text not in RESERVED:
        return text
    raise Misaddressed(
        f"vehicle id {str(text)[:80]!r} is not accepted: 1 to 64 of A-Z a-z 0-9 . _ - and not 'sensor'",
        reason="bad_vehicle_id",
    )


def command_id(vehicle_id: str, at_ms: int, seed: str) -> str:
    """`{vehicle_id}.{ulid}`; the ULID's random half is a hash of `seed`, so a replay makes the same id.

    Give a random seed where the id must be new, the cause's id where it must be the same again.
    """
    random = hashlib.sha256(f"{vehicle_id}\0{seed}".encode()).digest()[:10]
    return f"{vehicle_id}.{ULID(at_ms.to_bytes(6, 'big') + random)}"


def vehicle_of(command: str) -> str:
    """The vehicle a command id belongs to; raises `Misaddressed` when it is no command id."""
    vehicle, dot, ulid = command.rpartition(".")
    if dot and len(ulid) == 26:
        return check_vehicle_id(vehicle)
    raise Misaddressed(
        f"command id {command[:100]!r} is not accepted: <vehicle id>.<26-character ULID>",
        reason="bad_vehicle_id",
    )

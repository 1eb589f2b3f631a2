"""Redis keys of the read model: written by the worker's view, read by the API. Rebuildable at any time.

| key | type | content |
|---|---|---|
| `twin:{id}` | string | `Head` as JSON array, line feed, twin document (`wire.columnar`) |
| `ids` | sorted set, score 0 | all vehicle ids, in lexical order |
| `is:{field}:{value}` | set | ids of the twins whose text `field` (one of COUNTED) is `value` |
| `count:{field}` | sorted set | values that occur, score = number of twins |
| `values:{field}` | sorted set, score 0 | the same values, in lexical order |
| `by:{field}` | sorted set | ids by number, for each of NUMBERS; a twin without one is not in it |
| `health:alarm` | sorted set | ids of the twins whose health is alarm, score = since |
| `command:{command_id}` | string | ledger entry (JSON) |
| `commands:{id}` | sorted set | command ids of a vehicle, score = issued_at |
| `recent_commands` | sorted set | the newest RECENT command ids of all vehicles, score = updated_at |
| `reply:{request_id}` | string, 24 h | the owner's answer (JSON `Reply`) |
| `owner:{partition}` | string | epoch of the partition's owner: who is not it, writes nothing (law 5) |
Channel `replies`: a request id, right after its reply was stored; only a hint.

To keep moving a car in five orders at each message would cost Redis several times what the document
does. So the score in `by:{field}` follows the document's number only when it has moved by more than
LAG[field]; whoever needs it exactly takes a range wider by that and looks into the documents.
"""

from typing import Any, Final, NamedTuple

import orjson

from twin.wire import columnar
from twin.wire.catalogue import BY_NAME, INDEXED
from twin.wire.records import Twin

IDS: Final = "ids"
ALARMS: Final = "health:alarm"
RECENT_COMMANDS: Final = "recent_commands"
REPLIES: Final = "replies"
RECENT: Final = 1000
REPLY_TTL_S: Final = 86_400
COUNTED: Final = ("presence", "health", "fleet", "model", "firmware")
"""Text fields of the index."""
LAST_SEEN: Final = "last_seen"
"""Arrival of the last new telemetry, ms."""
OPEN_COMMANDS: Final = "open_commands"
"""How many commands are open; a twin without one is not in the sorted set."""
NUMBERS: Final = (*INDEXED, LAST_SEEN, OPEN_COMMANDS)
"""Numbers of the index."""
LAG: Final[dict[str, float]] = {
    **{name: (BY_NAME[name].high - BY_NAME[name].low) / 256 for name in INDEXED},
    "coolant_temp": 2.0,
    "battery_percentage": 0.02,
    "speed": 2.0,
    "engine_vibration_amplitude": 40.0,
    LAST_SEEN: 60_000,
    OPEN_COMMANDS: 0,
}
"""A score in `by:{field}` is at most this far from the number in the document, in the signal's unit.

Beyond what a healthy car's sensor scatters from message to message: three of four moves are saved, and a
move is most of what a message costs Redis.
"""
HEAD_BYTES: Final = 64
"""Epoch, creation and revision are within the first so many bytes of a twin's value."""


class Head(NamedTuple):
    """What comes before the document: its version (the greater tuple is newer) and its texts."""

    epoch: int
    created_at: int
    revision: int
    presence: str
    health: str
    fleet: str
    model: str
    firmware: str


def head_of(value: bytes) -> Head:
    """The head of a twin's value, or of a beginning of it that has the line feed."""
    return Head(*orjson.loads(value[: value.index(b"\n")]))


def document_of(value: bytes) -> bytes:
    """The document (JSON) in a twin's value."""
    return columnar.document_of(value[value.index(b"\n") + 1 :])


def version_of(value: bytes) -> tuple[int, int, int]:
    """Epoch, creation (ms) and revision in the first HEAD_BYTES of a twin's value."""
    epoch, created_at, revision, _ = value[1:HEAD_BYTES].split(b",", 3)
    return int(epoch), int(created_at), int(revision)


def index_of(twin: Twin) -> dict[str, Any]:
    """The indexed fields of a document; a number that it does not have is absent."""
    attributes, reported = twin["attributes"], twin["reported"]
    index: dict[str, Any] = {
        "presence": twin["presence"]["state"],
        "health": twin["health"]["state"],
        "fleet": attributes.get("fleet", ""),
        "model": attributes.get("model", ""),
        "firmware": attributes.get("firmware", ""),
        OPEN_COMMANDS: len(twin["commands"]["open"]),
    }
    if "seen" in twin["presence"]:
        index[LAST_SEEN] = twin["presence"]["seen"]
    for name in INDEXED:
        if name in reported:
            index[name] = reported[name]["v"]
    return index


def twin(vehicle_id: str) -> str:
    return f"twin:{vehicle_id}"


def having(field: str, value: str) -> str:
    return f"is:{field}:{value}"


def count(field: str) -> str:
    return f"count:{field}"


def values(field: str) -> str:
    return f"values:{field}"


def by(field: str) -> str:
    return f"by:{field}"


def command(command_id: str) -> str:
    return f"command:{command_id}"


def commands(vehicle_id: str) -> str:
    return f"commands:{vehicle_id}"


def reply(request_id: str) -> str:
    return f"reply:{request_id}"


def owner(partition: int) -> str:
    return f"owner:{partition}"

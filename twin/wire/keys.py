"""Redis keys of the read model: written by the worker's view, read by the API. Rebuildable at any time.

| key | type | content |
|---|---|---|
| `twin:{id}` | hash | d = twin document (JSON), r = revision, c = created_at, x = indexed (JSON) |
| `ids` | sorted set, score 0 | all vehicle ids, in lexical order |
| `count:{field}` | hash | value -> number of twins, for each of COUNTED |
| `health:alarm` | sorted set | vehicle ids whose health is alarm, score = since |
| `command:{command_id}` | string | ledger entry (JSON) |
| `commands:{id}` | sorted set | command ids of a vehicle, score = issued_at |
| `commands:recent` | sorted set | the newest RECENT command ids of all vehicles, score = updated_at |
| `reply:{request_id}` | string, 24 h | the owner's answer (JSON `Reply`) |
Channel `replies`: a request id, right after its reply was stored; only a hint.
"""

from typing import Final

IDS: Final = "ids"
ALARMS: Final = "health:alarm"
RECENT_COMMANDS: Final = "commands:recent"
REPLIES: Final = "replies"
RECENT: Final = 1000
REPLY_TTL_S: Final = 86_400
COUNTED: Final = ("presence", "health", "fleet", "model", "firmware")


def twin(vehicle_id: str) -> str:
    return f"twin:{vehicle_id}"


def count(field: str) -> str:
    return f"count:{field}"


def command(command_id: str) -> str:
    return f"command:{command_id}"


def commands(vehicle_id: str) -> str:
    return f"commands:{vehicle_id}"


def reply(request_id: str) -> str:
    return f"reply:{request_id}"

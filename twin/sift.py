"""What a changelog holds under an owner's epoch and no owner can have written: left out, and said.

    tails that could not be restored -> sift -> the same without entries and outboxes that are not whole

Records without an epoch are judged where they are read; documents and entries by `restore`, which passes
over what is not whole. Outboxes are what only owners write, so to check each of them would be for
nothing: they are checked when a restore failed or found something to tell that nobody could be told.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

import orjson

from twin.changelog import Tail
from twin.fields import check_entry
from twin.kit import logs
from twin.outbox import Kind, Output, untold
from twin.wire import rejected
from twin.wire.errors import WireError

log = logs.get(__name__)

_KINDS: Final = frozenset(get_args(Kind))


def sift(twins: Tail, ledger: Tail) -> int:
    """Remove entries from `ledger` and outboxes from `twins` that are not whole; how many."""
    strange = [key for key, newest in ledger.newest.items() if not _entry(key, newest.value)]
    for key in strange:
        log.error("no ledger entry", key=key)
        del ledger.newest[key]
    whole = []
    for vehicle_id, outbox in twins.outboxes:
        if _outbox(vehicle_id, outbox):
            whole.append((vehicle_id, outbox))
        else:
            log.error("no outbox", vehicle_id=vehicle_id)
    removed = len(strange) + len(twins.outboxes) - len(whole)
    twins.outboxes = whole
    return removed


def tellable(vehicle_id: str, output: Output) -> bool:
    """Whether an output is one that an owner may have decided for a vehicle."""
    if output.kind not in _KINDS or not isinstance(output.key, str):
        return False
    if type(output.revision) is not int:
        return False
    if output.kind == "ledger":
        return output.key.startswith(f"{vehicle_id}/") and _entry(output.key, output.value)
    if output.kind == "rejected":
        return _rejected(vehicle_id, output.value)
    record = _object(output.value)
    if output.kind != "replies":
        return record.get("vehicle_id") == vehicle_id
    return isinstance(record.get("request_id"), str) and record.get("vehicle_id") == vehicle_id


def _outbox(vehicle_id: str, outbox: bytes) -> bool:
    try:
        return all(tellable(vehicle_id, output) for output in untold(outbox, {}))
    except (ValueError, LookupError, TypeError):
        return False


def _entry(key: str, value: bytes | None) -> bool:
    if value is None:
        return True
    try:
        check_entry(key, _object(value))
    except WireError:
        return False
    return True


def _rejected(vehicle_id: str, value: bytes | None) -> bool:
    try:
        key, _, headers = rejected.load(value or b"")
    except (ValueError, LookupError, TypeError):
        return False
    return key == vehicle_id and all(isinstance(name, str) for name, _ in headers)


def _object(value: bytes | None) -> Mapping[str, Any]:
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}

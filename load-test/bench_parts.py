"""A recovery in its parts, from the log of the worker that takes over and from the changelog. Pure.

    SIGKILL -> revoked (detected) -> restoring (rebalanced) -> restored -> resumed -> first fresh write

Log lines are JSON (LOG_FORMAT=json) with `event`, `timestamp` and `partitions`. `pause_s` is how long
the one that takes over served nothing, its own partitions included.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

_EVENTS: Final = frozenset({"revoked", "restoring", "restored", "resumed"})


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a worker's log about its partitions; `at` in seconds since 1970."""

    name: str
    at: float
    partitions: frozenset[int]
    fields: Mapping[str, Any]


def events(lines: Iterable[bytes]) -> list[Event]:
    """The events among the lines of a log; other lines are passed over."""
    found = []
    for line in lines:
        if not line.startswith(b"{"):
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # cut by a kill
        if fields.get("event") in _EVENTS:
            at = datetime.fromisoformat(fields["timestamp"]).timestamp()
            found.append(Event(fields["event"], at, frozenset(fields["partitions"]), fields))
    return found


def partitions_of(found: Iterable[Event]) -> frozenset[int]:
    """What a worker served last."""
    served: frozenset[int] = frozenset()
    for event in found:
        if event.name == "resumed":
            served = event.partitions
    return served


def parts(
    found: Iterable[Event],
    killed_at: float,
    lost: frozenset[int],
    first_write_at: float,
    *,
    restarted: bool,
) -> dict[str, float] | None:
    """Seconds of each part, from the events of one worker; None when it took nothing of `lost`.

    `restarted`: it is the killed one itself, so what precedes its first event is its start. The last
    restore before it resumed is the one that counts: an earlier one may have been overtaken by another
    rebalance, and then belongs to the rebalance.
    """
    later = [event for event in found if killed_at <= event.at]
    resumed = next((e for e in later if e.name == "resumed" and e.partitions & lost), None)
    if resumed is None:
        return None
    before = [event for event in later if event.at <= resumed.at]
    restored = next((e for e in reversed(before) if e.name == "restored"), None)
    restoring = next((e for e in reversed(before) if e.name == "restoring"), None)
    if restored is None or restoring is None:
        return None
    revoked = next((e for e in before if e.name == "revoked" and e.at <= restoring.at), None)
    first = before[0].at if restarted else killed_at
    detected = first if revoked is None else revoked.at
    told: dict[str, float] = {
        "start_s" if restarted else "detection_s": detected - killed_at,
        "rebalance_s": restoring.at - detected,
        "restore_s": restored.at - restoring.at,
        "resume_s": resumed.at - restored.at,
        "first_write_s": first_write_at - resumed.at,
        "total_s": first_write_at - killed_at,
    }
    for name in ("twins", "records", "from_copy"):
        if name in restored.fields:
            told[f"restored_{name}"] = restored.fields[name]
    if "seconds" in resumed.fields:
        told["pause_s"] = resumed.fields["seconds"]
    return {name: round(value, 3) for name, value in told.items()}

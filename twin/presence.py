"""Presence: whether a car can be reached, by session number and never by arrival (law 8).

Of two statuses the one with the greater (session, offline after online) is the newer: a session
begins once and ends once, so a will of an old session, a birth repeated by a retained message and a
birth that its own will has overtaken change nothing. `stale` is not said by anybody: it is a deadline
that found no new telemetry although the connection lives; new telemetry of the session ends it.

What is shown and what is told differ in time. The document shows each state at once, and nothing is
sent to a car that is not online; but an `offline` is told on `changes` only when it has lasted
`debounce_ms`, by a deadline record, and with the status that said it as its cause. So a car that drops
and comes back tells nothing, and of 100,000 cars that come back after a broker's restart only those
that were gone for longer are told; all of them are sent what is open, once per session. All other
states are told at once, if they are not what was told last.
"""

from typing import Final

from twin import causes
from twin.step import Context, Step
from twin.wire import topics
from twin.wire.explain import cause_of, position_of
from twin.wire.records import Presence, PresenceState, Twin, TwinPresence

_ENDED: Final = 1
REASON_LENGTH: Final = 200
_HERE: Final = "/presence"
_SEEN: Final = "/presence/seen"


def order_of(session: int, state: PresenceState) -> tuple[int, int]:
    """What makes one status newer than another; before any status nothing is older."""
    if state == "unknown":
        return (-1, 0)
    return (session, _ENDED if state == "offline" else 0)


def on_status(step: Step, record: Presence) -> bool:
    """A birth, will or goodbye. False when it says nothing new."""
    presence = step.twin["presence"]
    state, session = record["state"], record["session"]
    if order_of(session, state) <= order_of(presence["session"], presence["state"]):
        step.effects.outdated = True
        return False
    after = TwinPresence(
        state=state,
        since=step.at,
        session=session,
        shard=record["shard"],
        reason=record.get("reason", "")[:REASON_LENGTH],
    )
    if state == "online":
        after["seen"] = step.at
    elif "seen" in presence:
        after["seen"] = presence["seen"]
    _become(step, after)
    return True


def on_telemetry(step: Step) -> None:
    """New telemetry of the presence's own session while stale: the car is back."""
    presence = step.twin["presence"]
    _become(
        step,
        {**presence, "state": "online", "since": step.at, "reason": "telemetry again"},
    )


def on_deadline(step: Step, ref: str, due: int) -> None:
    """Time for an offline to be told, or for an online car to have said something."""
    presence = step.twin["presence"]
    when = next_due(presence, step.context) if ref == str(presence["session"]) else None
    if when is None or when > due:
        step.effects.outdated = True
        if when is not None:
            step.arm("presence", ref, when)
    elif presence["state"] == "offline":
        _tell_late(step)
    else:
        silent_s = step.context.stale_after_ms // 1000
        reason = f"no new telemetry for {silent_s} s"
        _become(step, {**presence, "state": "stale", "since": step.at, "reason": reason})


def next_due(presence: TwinPresence, context: Context) -> int | None:
    """When an online car becomes stale, or an offline is told (ms); None when nothing is awaited."""
    if presence["state"] == "online":
        return presence.get("seen", presence["since"]) + context.stale_after_ms
    return presence["since"] + context.debounce_ms if "told" in presence else None


def newest_telemetry(twin: Twin, session: int) -> int | None:
    """Offset of the newest telemetry record of a session among those that have a value in the twin."""
    offsets = [e["o"] for e in twin["reported"].values() if e["n"] in (0, session)]
    return max(offsets, default=None)


def _become(step: Step, after: TwinPresence) -> None:
    twin, before = step.twin, step.twin["presence"]
    told = before.get("told", before["state"])
    _keep_cause_of_seen(step, after)
    after.pop("told", None)
    if after["state"] == "offline" and told != "offline":
        after["told"] = told
    twin["presence"] = after
    step.effects.changed = True
    due = next_due(after, step.context)
    if due is not None:
        step.arm("presence", str(after["session"]), due)
    if after["state"] not in (told, "offline"):
        _tell(step, told)


def _keep_cause_of_seen(step: Step, after: TwinPresence) -> None:
    """While `seen` is later than `since` telemetry has set it, which leaves no cause of its own."""
    before, paths = step.twin["presence"], step.twin.get("causes", {})
    cause = paths.get(_SEEN)
    if after.get("seen") == step.at:
        cause = step.place
    elif before.get("seen", before["since"]) > before["since"]:
        offset = newest_telemetry(step.twin, before["session"])
        if offset is not None:
            cause = f"{topics.TELEMETRY}/{offset}"
    step.because(_HERE)
    if cause is not None and "seen" in after:
        step.twin["causes"] = causes.whole(step.twin["causes"], [_SEEN], cause)


def _tell_late(step: Step) -> None:
    """The offline has lasted: told now, because of the status that said it."""
    presence = step.twin["presence"].copy()
    told = presence.pop("told")
    cause = cause_of(step.twin.get("causes", {}), _HERE) or step.place
    step.twin["presence"] = presence
    _tell(step, told, cause)


def _tell(step: Step, before: PresenceState, cause: str | None = None) -> None:
    presence = step.twin["presence"]
    what = {
        "from": before,
        "state": presence["state"],
        "since": presence["since"],
        "session": presence["session"],
        "shard": presence["shard"],
        "reason": presence["reason"],
    }
    why = None if cause is None else position_of(cause, step.why["partition"])
    step.change("presence", what, why=why)

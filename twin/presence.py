"""Presence: whether a car can be reached, by session number and never by arrival (law 8).

Of two statuses the one with the greater (session, offline after online) is the newer: a session
begins once and ends once, so a will of an old session, a birth repeated by a retained message and a
birth that its own will has overtaken change nothing. `stale` is not said by anybody: it is a deadline
that found no new telemetry although the connection lives; new telemetry of the session ends it.
"""

from typing import Final

from twin.step import Step
from twin.wire.records import Presence, PresenceState, TwinPresence

_ENDED: Final = 1
REASON_LENGTH: Final = 200


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
        step.arm("presence", str(session), step.at + step.context.stale_after_ms)
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
    step.arm("presence", str(presence["session"]), step.at + step.context.stale_after_ms)


def on_deadline(step: Step, ref: str, due: int) -> None:
    """The car should have said something by now; waits on when it has."""
    presence = step.twin["presence"]
    if presence["state"] != "online" or ref != str(presence["session"]):
        step.effects.outdated = True
        return
    stale_at = stale_due(presence, step.context.stale_after_ms)
    if stale_at > due:
        step.effects.outdated = True
        step.arm("presence", ref, stale_at)
        return
    silent_s = step.context.stale_after_ms // 1000
    _become(
        step,
        {
            **presence,
            "state": "stale",
            "since": step.at,
            "reason": f"no new telemetry for {silent_s} s",
        },
    )


def stale_due(presence: TwinPresence, stale_after_ms: int) -> int:
    """When an online car becomes stale (ms)."""
    return presence.get("seen", presence["since"]) + stale_after_ms


def _become(step: Step, after: TwinPresence) -> None:
    before = step.twin["presence"]
    step.twin["presence"] = after
    step.change(
        "presence",
        {
            "from": before["state"],
            "state": after["state"],
            "session": after["session"],
            "shard": after["shard"],
            "reason": after["reason"],
        },
    )

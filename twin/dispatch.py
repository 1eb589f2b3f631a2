"""Commands on their way to the car: in lanes, said once per session, withdrawn when cancelled.

Only an online car is spoken to; what it could not be told waits for its next session. A command counts
as sent only when a delivery record says that the broker took it.

Lanes. Commands without a lane (lane `default`) wait for nobody: each is handed out as soon as the car
is there. Every other lane is a queue: a command is handed out when the one before it in its lane has
ended, however it ended, so the car gets the commands of a lane one at a time and in the order in which
they were asked for. Lanes do not wait for each other. A silent head ends at its expiry, or two
`overdue_after` after its last word when it was running, so a stuck one blocks its lane no longer than
that; the time to live of those behind it goes on meanwhile.
"""

from typing import Any, Final

from twin.step import Step
from twin.wire.records import FREE_LANE, Command

ATTEMPTS: Final = 10
"""Sessions remembered per command."""


def publish_open(step: Step) -> None:
    """The car came online: say what it has not been told in this session and nothing is before."""
    _repeat_cancels(step)
    taken: set[str] = set()
    for command_id in step.twin["commands"]["open"]:
        command = step.command(command_id)
        if command is not None and command["lane"] not in taken:
            if command["lane"] != FREE_LANE:
                taken.add(command["lane"])
            _publish_once(step, command)


def advance(step: Step, lane: str) -> None:
    """A command of the lane has ended: the next one goes out."""
    if lane == FREE_LANE or not step.online:
        return
    for command_id in step.twin["commands"]["open"]:
        command = step.command(command_id)
        if command is not None and command["lane"] == lane:
            _publish_once(step, command)
            return


def has_to_wait(step: Step, command: Command) -> bool:
    """Whether an older command of its lane is open."""
    if command["lane"] == FREE_LANE:
        return False
    for command_id in step.twin["commands"]["open"]:
        if command_id == command["id"]:
            return False
        other = step.command(command_id)
        if other is not None and other["lane"] == command["lane"]:
            return True
    return False


def _publish_once(step: Step, command: Command) -> None:
    session = step.twin["presence"]["session"]
    if command["expires_at"] > step.at and session not in command["attempts"]:
        publish(step, command)


def publish(step: Step, command: Command) -> Command:
    """Hand it to the downlink for the car's session; `sent` only when the broker has it."""
    payload: dict[str, Any] = {
        "id": command["id"],
        "name": command["name"],
        "args": command["args"],
        "lane": command["lane"],
        "issued_at": command["issued_at"],
        "expires_at": command["expires_at"],
    }
    if "cause" in command:
        payload["cause"] = command["cause"]
    step.send("command", command["id"], payload, command["expires_at"])
    session = step.twin["presence"]["session"]
    after: Command = {
        **command,
        "attempts": [*command["attempts"], session][-ATTEMPTS:],
        "updated_at": step.at,
    }
    step.put(after)
    return after


def withdraw(step: Step, command_id: str) -> None:
    """The car may have it: tell it now, and again in each session until it would have expired."""
    told_in = 0
    if step.online:
        send_cancel(step, command_id)
        told_in = step.twin["presence"]["session"]
    commands = step.twin["commands"]
    cancels = {**commands.get("cancels", {}), command_id: told_in}
    bounded = dict(list(cancels.items())[-step.context.limits.open_commands :])
    step.twin["commands"] = {**commands, "cancels": bounded}
    step.because("/commands/cancels")


def _repeat_cancels(step: Step) -> None:
    cancels, session = step.twin["commands"].get("cancels", {}), step.twin["presence"]["session"]
    if not cancels:
        return
    left: dict[str, int] = {}
    for command_id, told_in in cancels.items():
        command = step.command(command_id)
        if command is None or command["expires_at"] <= step.at:
            continue
        if told_in != session:
            send_cancel(step, command_id)
        left[command_id] = session
    step.twin["commands"] = {**step.twin["commands"], "cancels": left}
    step.because("/commands/cancels")
    step.effects.changed = True


def send_cancel(step: Step, command_id: str) -> None:
    """Tell the car to drop a command, once."""
    step.send("cancel", command_id, {"id": command_id, "cancel": True})


def send_forget(step: Step) -> None:
    """The twin is deleted: its broker shall not tell the retained status to uplinks to come.

    Without a status no broker is known, and none has anything to forget.
    """
    presence = step.twin["presence"]
    if presence["state"] != "unknown":
        step.send("forget", str(presence["session"]), {})

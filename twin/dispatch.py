"""Commands on their way to the car: said once per session, withdrawn when cancelled.

Only an online car is spoken to; what it could not be told waits for its next session. A command counts
as sent only when a delivery record says that the broker took it.
"""

from typing import Any, Final

from twin.step import Step
from twin.wire.records import Command

ATTEMPTS: Final = 10
"""Sessions remembered per command."""


def publish_open(step: Step) -> None:
    """The car came online: say what it has not been told in this session."""
    session = step.twin["presence"]["session"]
    for command_id in step.twin["commands"]["open"]:
        command = step.command(command_id)
        if (
            command is not None
            and command["expires_at"] > step.at
            and session not in command["attempts"]
        ):
            publish(step, command)
    cancels = step.twin["commands"].get("cancels", {})
    if cancels:
        left: dict[str, int] = {}
        for command_id, told_in in cancels.items():
            command = step.command(command_id)
            if command is None or command["expires_at"] <= step.at:
                continue
            if told_in != session:
                _send_cancel(step, command_id)
            left[command_id] = session
        step.twin["commands"] = {**step.twin["commands"], "cancels": left}
        step.effects.changed = True


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
        _send_cancel(step, command_id)
        told_in = step.twin["presence"]["session"]
    commands = step.twin["commands"]
    cancels = {**commands.get("cancels", {}), command_id: told_in}
    bounded = dict(list(cancels.items())[-step.context.limits.open_commands :])
    step.twin["commands"] = {**commands, "cancels": bounded}


def _send_cancel(step: Step, command_id: str) -> None:
    step.send("cancel", command_id, {"id": command_id, "cancel": True})

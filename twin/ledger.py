"""The ledger of commands: opened by requests and rules, moved by deliveries, the car and time.

    request command | rule -> queued -> downlink when online -> delivery sent -> the car's outcomes
    new session -> every open, unexpired command that is not behind another in its lane, again

The states and what moves them are the table in `twin.lifecycle`; here is what goes with a move: the
history, the twin's list of open commands, the change that is told, the next deadline.
"""

from typing import Any, Final, cast

from twin.dispatch import advance, has_to_wait, publish, withdraw
from twin.effects import Refusal
from twin.lifecycle import FINAL, WITHOUT_CAR, Event, due_event, next_due, next_state
from twin.orders import is_ours, read_order
from twin.step import Order, Step
from twin.wire.errors import Invalid
from twin.wire.records import (
    Command,
    CommandState,
    Delivery,
    Late,
    Outcome,
    Refused,
    Request,
    Transition,
    TwinCommands,
)

HISTORY: Final = 20
REFUSED_SESSIONS: Final = 3
REASON_LENGTH: Final = 500

_LATE_RANK: Final = ("received", "accepted", "running", "rejected", "failed", "succeeded")


def on_request(step: Step, request: Request) -> tuple[int, dict[str, Any]]:
    """Decide a command; status and body of the answer. Raises `Refusal` and changes nothing."""
    order = read_order(step, request)
    known = step.command(order.id)
    if known is None and order.idempotency_key is not None:
        known = step.ledger.by_key(step.vehicle_id, order.idempotency_key)
    if known is not None:
        if known.get("body_hash") != order.body_hash:
            raise Refusal(
                409,
                "idempotency_conflict",
                f"the Idempotency-Key was used for another command, {known['id']}",
                {"id": known["id"]},
            )
        step.effects.outdated = True
        return 201, answer_of(known)
    most = step.context.limits.open_commands
    if len(step.twin["commands"]["open"]) >= most:
        raise Refusal(
            429,
            "too_many_open_commands",
            f"{step.vehicle_id} has {most} open commands, the most accepted",
        )
    most = step.context.limits.day_commands
    if step.ledger.count(step.vehicle_id) >= most:
        raise Refusal(
            429,
            "too_many_commands",
            f"{step.vehicle_id} has had {most} commands within 24 h, the most accepted",
        )
    return 201, answer_of(open_command(step, order))


def on_cancel(step: Step, request: Request) -> tuple[int, dict[str, Any]]:
    """Decide a cancel; status and body of the answer. Raises `Refusal` and changes nothing."""
    command_id = request["body"].get("command_id")
    command = step.command(command_id) if is_ours(command_id, step.vehicle_id) else None
    if command is None:
        raise Refusal(
            404,
            "command_not_found",
            f"{step.vehicle_id} has no command {str(command_id)[:100]!r}",
        )
    state = command["state"]
    if state in FINAL:
        raise Refusal(
            410, "already_final", f"command {command['id']} is {state} already", {"state": state}
        )
    if next_state(command, "cancel") is None:
        raise Refusal(
            409,
            "illegal_transition",
            f"command {command['id']} is {_standing(command)}; a cancel is accepted before the car"
            " runs it",
            {"state": state},
        )
    if command["attempts"]:
        # Before it ends, so that the car hears of the end before it gets the next of the lane.
        withdraw(step, command["id"])
    command = _move(step, command, "cancel", reason=f"by {request['by']}"[:REASON_LENGTH])
    return 200, answer_of(command)


def _standing(command: Command) -> str:
    state = command["state"]
    return f"{state}, and the car was running it" if state == "overdue" else state


def answer_of(command: Command) -> dict[str, Any]:
    """A command as the body of an answer: the entry itself and no copy, because its owner has still to
    write revision and epoch on it, and the answer says what is stored."""
    return cast(dict[str, Any], command)


def open_command(step: Step, order: Order) -> Command:
    """A new command, sent when the car is online and its lane free. The caller checked the limits."""
    command = Command(
        id=order.id,
        vehicle_id=step.vehicle_id,
        name=order.name,
        args=dict(order.args),
        lane=order.lane,
        state="queued",
        issued_at=step.at,
        expires_at=step.at + order.ttl_ms,
        updated_at=step.at,
        by=order.by,
        history=[Transition(state="queued", at=step.at)],
        attempts=[],
    )
    if order.cause is not None:
        command["cause"] = order.cause
    if order.fleet is not None:
        command["fleet"] = order.fleet
    if order.idempotency_key is not None:
        command["idempotency_key"] = order.idempotency_key
    if order.body_hash is not None:
        command["body_hash"] = order.body_hash
    _settle(step, command)
    _tell(step, command)
    step.arm("command", command["id"], command["expires_at"])
    if step.online and not has_to_wait(step, command):
        command = publish(step, command)
    return command


def on_outcome(step: Step, record: Outcome) -> None:
    """The car's word on a command."""
    command = step.command(record["command_id"])
    if command is None:
        # Which of the two it is cannot be told: there is nothing left of a forgotten one.
        step.effects.rejected = Invalid(
            f"{step.vehicle_id} has no command {record['command_id']}, or not any more: one that has"
            " ended is kept for 24 h, for 7 days while the car owes its end",
            reason="unknown_command",
        )
        return
    reason = record.get("reason", "")[:REASON_LENGTH]
    progress = record.get("progress")
    if next_state(command, record["state"]) is not None:
        _move(step, command, record["state"], reason=reason, progress=progress)
    elif command["state"] == "running" and record["state"] == "running":
        _go_on(step, command, progress)
    elif command["state"] in WITHOUT_CAR:
        _note_late(step, command, record, reason)
    else:
        step.effects.outdated = True


def on_delivery(step: Step, record: Delivery) -> None:
    """What became of a command, or of its cancel, at the broker. A cancel taken changes nothing."""
    command = step.command(record["ref"]) if is_ours(record["ref"], step.vehicle_id) else None
    if command is None:
        step.effects.outdated = True
    elif record["state"] == "refused":
        _refused(step, command, record)
    elif record["kind"] == "command" and next_state(command, "sent") is not None:
        _move(step, command, "sent")
    else:
        step.effects.outdated = True


def on_deadline(step: Step, ref: str, due: int) -> None:
    """Time is up for a command, unless something happened since."""
    command = step.command(ref) if is_ours(ref, step.vehicle_id) else None
    if command is None or command["state"] in FINAL:
        step.effects.outdated = True
        return
    overdue_after = step.context.overdue_after_ms
    event = due_event(command, due, overdue_after)
    if event is None:
        step.effects.outdated = True
        later = next_due(command, overdue_after)
        if later is not None:
            step.arm("command", ref, later)
    elif event == "expire":
        _move(step, command, event, reason="its time to live is over")
    else:
        silent_s = overdue_after // 1000
        _move(step, command, event, reason=f"no word of the car for {silent_s} s")


def _move(
    step: Step,
    command: Command,
    event: Event,
    *,
    reason: str = "",
    progress: float | None = None,
) -> Command:
    """Carry out a transition that the table allows."""
    state = next_state(command, event)
    assert state is not None
    transition = Transition(state=state, at=step.at)
    if reason:
        transition["reason"] = reason
    history = [*command["history"], transition]
    if len(history) > HISTORY:
        history = [history[0], *history[1 - HISTORY :]]
    after: Command = {**command, "state": state, "updated_at": step.at, "history": history}
    if progress is not None:
        after["progress"] = max(progress, command.get("progress", 0.0))
    _settle(step, after)
    _tell(step, after, before=command["state"], reason=reason)
    due = next_due(after, step.context.overdue_after_ms)
    if due is not None:
        step.arm("command", after["id"], due)
    if state in FINAL:
        advance(step, after["lane"])
    return after


def _settle(step: Step, command: Command) -> None:
    """Write the entry, and the twin's summary of its commands."""
    step.put(command)
    commands = step.twin["commands"]
    command_id, state = command["id"], command["state"]
    opened = commands["open"]
    if (state in FINAL) == (command_id in opened):
        opened = (
            [other for other in opened if other != command_id]
            if state in FINAL
            else [*opened, command_id]
        )
    after: TwinCommands = {
        **commands,
        "open": opened,
        "last": {"id": command_id, "name": command["name"], "state": state},
    }
    step.twin["commands"] = after
    # Not `because`: the record behind /commands/cancels stays.
    step.twin["causes"] = {**step.twin.get("causes", {}), "/commands": step.place}


def _tell(
    step: Step,
    command: Command,
    *,
    before: CommandState | None = None,
    reason: str = "",
    **more: Any,
) -> None:
    """Without `before` it is a new command, or its progress."""
    what: dict[str, Any] = {
        "id": command["id"],
        "name": command["name"],
        "state": command["state"],
        "by": command["by"],
    }
    if before is not None:
        what["from"] = before
    if reason:
        what["reason"] = reason
    if "progress" in command:
        what["progress"] = command["progress"]
    step.change("command", {**what, **more})


def _go_on(step: Step, command: Command, progress: float | None) -> None:
    """Still running: a sign of life, told when there is progress."""
    after: Command = {**command, "updated_at": step.at}
    further = progress is not None and progress > command.get("progress", -1.0)
    if further and progress is not None:
        after["progress"] = progress
    step.put(after)
    if further:
        _tell(step, after)


def _note_late(step: Step, command: Command, record: Outcome, reason: str) -> None:
    """It ended without the car; its state stays, but what the car did is not hidden."""
    said = command.get("late")
    if said and _LATE_RANK.index(record["state"]) <= _LATE_RANK.index(said["state"]):
        step.effects.outdated = True
        return
    late = Late(state=record["state"], at=step.at)
    if reason:
        late["reason"] = reason
    step.put({**command, "late": late, "updated_at": step.at})
    step.change(
        "late_outcome",
        {
            "id": command["id"],
            "name": command["name"],
            "state": command["state"],
            "outcome": record["state"],
            **({"reason": reason} if reason else {}),
        },
    )


def _refused(step: Step, command: Command, record: Delivery) -> None:
    """The broker did not take it, which is told once per session; it waits for the next one.

    Not for ever: what the broker has never taken is given up after some sessions. A cancel is said again
    in the next session, too.
    """
    state, kind, session = command["state"], record["kind"], record["session"]
    waits = state == "cancelled" if kind == "cancel" else state not in FINAL
    known, refusals = command.get("refused"), command.get("refusals", [])
    again = known is not None and known["kind"] == kind and known["session"] >= session
    if not waits or again or (state == "queued" and session in refusals):
        step.effects.outdated = True
        return
    reason = (record.get("reason") or "refused by the broker")[:REASON_LENGTH]
    refused = Refused(kind=kind, session=session, at=step.at, reason=reason)
    after: Command = {**command, "refused": refused}
    if state == "queued":
        after["refusals"] = [*refusals, session]
    if len(after.get("refusals", [])) >= REFUSED_SESSIONS and state == "queued":
        _move(step, after, "given_up", reason=reason)
    else:
        step.put(after)
        _tell(step, after, before=state, refused=refused)

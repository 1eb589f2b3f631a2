"""The owner's decision: one record applied to one twin. Pure; `at` is the only time there is.

    (twin, ledger, record, position, at, context) -> (twin, effects)

State is a function of the log: the same records in the same order give the same twin and the same
outputs with the same ids, whoever applies them. The caller owns the document; it is changed in place
(see `twin.state`) and returned. If this raises (a defect; bad input never does) the document is
half-done: the caller must end without storing it. Between two records the ledger must show what the
first one wrote.

Law 2: a record applied before, by offset, changes nothing. Law 7: the revision grows by one per record
that changes the document or an entry of its ledger, or tells a change; `applied` alone does not count.
So a wholly late or repeated telemetry record leaves the revision as it is.

Made by its first message (`auto_create`): telemetry, a status of either kind, reported. An outcome, a
score, a delivery or a deadline makes no twin; of the requests only `attributes` does.
"""

from collections.abc import Iterable
from typing import Any, assert_never

from twin import attributes, desired, dispatch, health, ledger, presence
from twin.decide import decide
from twin.effects import Deadline, Effects, Refusal
from twin.inputs import (
    DeadlineInput,
    DeliveryInput,
    Input,
    OutcomeInput,
    PresenceInput,
    ReportedInput,
    RequestInput,
    ScoreInput,
)
from twin.lifecycle import next_due
from twin.state import Limits, create, fold, was_applied
from twin.step import Context, Ledger, Step
from twin.wire.errors import Invalid
from twin.wire.records import Command, Position, Presence, Reply, Request, Score, Twin
from twin.wire.telemetry import Telemetry

__all__ = ["Context", "Ledger", "Limits", "apply", "deadlines_of"]


def apply(
    twin: Twin | None,
    ledger: Ledger,
    record: Input,
    position: Position,
    at: int,
    context: Context,
) -> tuple[Twin | None, Effects]:
    """The twin after `record` (None: there is none) and what the shell must carry out.

    `at` (ms) is when the record arrived. Raises nothing for any input that `inputs.read` gives.
    """
    effects = Effects()
    made = twin is None
    if twin is None:
        if not _makes_twin(record, position, context, effects):
            return None, effects
        twin = create(record.vehicle_id, at)
    elif was_applied(twin, position):
        effects.repeated = True
        return twin, effects
    step = Step(twin, ledger, position, at, context, effects)
    if made:
        step.change("created", {"by": position["topic"]})
    kept = True
    if isinstance(record, Telemetry):
        _telemetry(step, record)
    elif isinstance(record, RequestInput):
        kept = _request(step, record.record, made)
    else:
        _message(step, record)
    twin["applied"][position["topic"]] = [position["partition"], position["offset"]]
    if effects.changed:
        twin["revision"] += 1
        twin["updated_at"] = at
        effects.ledger.extend(step.touched.values())
    for reply in effects.replies:
        reply["revision"] = twin["revision"]
    return twin if kept else None, effects


def deadlines_of(twin: Twin, commands: Iterable[Command], context: Context) -> list[Deadline]:
    """All deadlines of a twin and its ledger entries, to rebuild the heap after a recovery."""
    vehicle_id, status = twin["vehicle_id"], twin["presence"]
    deadlines: list[Deadline] = []
    if status["state"] == "online":
        due = presence.stale_due(status, context.stale_after_ms)
        deadlines.append(Deadline(due, vehicle_id, "presence", str(status["session"])))
    for command in commands:
        when = next_due(command, context.overdue_after_ms)
        if when is not None:
            deadlines.append(Deadline(when, vehicle_id, "command", command["id"]))
    deadlines += {
        Deadline(end, vehicle_id, "desired", str(version))
        for version, end in desired.open_until(twin).values()
    }
    return sorted(deadlines, key=lambda deadline: deadline.due)


def _makes_twin(record: Input, position: Position, context: Context, effects: Effects) -> bool:
    """Whether a record of a vehicle without a twin makes one; otherwise says why not."""
    if isinstance(record, Telemetry | PresenceInput | ReportedInput):
        if not context.auto_create:
            effects.rejected = Invalid(
                f"vehicle {record.vehicle_id!r} has no twin; PUT attributes makes one",
                reason="unknown_vehicle",
            )
        return context.auto_create
    if isinstance(record, OutcomeInput):
        effects.rejected = Invalid(
            f"vehicle {record.vehicle_id!r} has no command {record.record['command_id']}",
            reason="unknown_command",
        )
        return False
    if not isinstance(record, RequestInput):
        effects.outdated = True
        return False
    try:
        if record.record["kind"] == "attributes":
            attributes.read(record.record, context.limits)
            return True
        raise Refusal(404, "twin_not_found", f"there is no twin of vehicle {record.vehicle_id}")
    except Refusal as refusal:
        effects.replies.append(_refused(record.record, refusal))
        return False


def _telemetry(step: Step, telemetry: Telemetry) -> None:
    twin, effects = step.twin, step.effects
    newer = fold(twin, telemetry, step.why["offset"])
    effects.late = len(telemetry.signals) - newer
    if not newer:
        effects.outdated = True
        return
    effects.changed = True
    status = twin["presence"]
    # Session 0: a car that does not number its sessions has only this one.
    if telemetry.session in (0, status["session"]) and "seen" in status:
        if status["state"] == "stale":
            presence.on_telemetry(step)
            _speak(step)
        status = twin["presence"]
        status["seen"] = max(status["seen"], step.at)


def _message(
    step: Step,
    record: PresenceInput
    | ReportedInput
    | OutcomeInput
    | DeliveryInput
    | ScoreInput
    | DeadlineInput,
) -> None:
    if isinstance(record, PresenceInput):
        _status(step, record.record)
    elif isinstance(record, ReportedInput):
        desired.on_reported(step, record.record)
    elif isinstance(record, OutcomeInput):
        ledger.on_outcome(step, record.record)
    elif isinstance(record, ScoreInput):
        _score(step, record.record)
    elif isinstance(record, DeliveryInput):
        if record.record["kind"] == "desired":
            desired.on_delivery(step, record.record)
        else:
            ledger.on_delivery(step, record.record)
    elif isinstance(record, DeadlineInput):
        _deadline(step, record)
    else:
        assert_never(record)


def _status(step: Step, record: Presence) -> None:
    if not presence.on_status(step, record):
        return
    if "attributes" in record:
        attributes.merge(step, record["attributes"])
    if step.online:
        _speak(step)


def _speak(step: Step) -> None:
    """The car can be reached again: open commands first, then what is desired."""
    dispatch.publish_open(step)
    desired.offer(step)


def _score(step: Step, score: Score) -> None:
    if health.on_score(step, score):
        for order in decide(step, score):
            ledger.open_command(step, order)


def _deadline(step: Step, record: DeadlineInput) -> None:
    if record.of == "presence":
        presence.on_deadline(step, record.ref, record.due)
    elif record.of == "command":
        ledger.on_deadline(step, record.ref, record.due)
    else:
        desired.on_deadline(step, record.ref, record.due)


def _request(step: Step, request: Request, made: bool) -> bool:
    """Decide a request and answer it; False when it deleted the twin."""
    kept = True
    try:
        if request["kind"] == "desired":
            status, body = desired.on_request(step, request)
        elif request["kind"] == "command":
            status, body = ledger.on_request(step, request)
        elif request["kind"] == "cancel":
            status, body = ledger.on_cancel(step, request)
        elif request["kind"] == "attributes":
            values = attributes.read(request, step.context.limits)
            attributes.replace(step, values, request["by"])
            status, body = 201 if made else 200, dict(values)
        else:
            _delete(step, request)
            status, body, kept = 204, {}, False
    except Refusal as refusal:
        step.effects.replies.append(_refused(request, refusal))
        return True
    step.effects.replies.append(_reply(request, status, body))
    return kept


def _delete(step: Step, request: Request) -> None:
    """Everything that belongs to the twin goes with it."""
    step.effects.removed.extend(command["id"] for command in step.ledger.of(step.vehicle_id))
    step.change("deleted", {"by": request["by"]})


def _refused(request: Request, refusal: Refusal) -> Reply:
    reply = _reply(request, refusal.status, refusal.body)
    reply["code"] = refusal.code
    reply["detail"] = refusal.detail
    return reply


def _reply(request: Request, status: int, body: dict[str, Any]) -> Reply:
    reply = Reply(
        request_id=request["request_id"],
        vehicle_id=request["vehicle_id"],
        status=status,
        body=body,
        revision=0,
    )
    if "body_hash" in request:
        reply["body_hash"] = request["body_hash"]
    return reply

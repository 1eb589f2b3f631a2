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
from typing import Any, Final, assert_never

from twin import (
    approval,
    attributes,
    desired,
    dispatch,
    health,
    lateness,
    ledger,
    presence,
    replies,
)
from twin.decide import decide
from twin.effects import Deadline, DeadlineOf, Effects, Refusal
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
from twin.wire.explain import CREATED, REVISION, revised
from twin.wire.records import (
    Command,
    Position,
    Presence,
    Score,
    Twin,
    TwinPresence,
)
from twin.wire.telemetry import Sample

__all__ = [
    "NEW_VALUES",
    "Context",
    "Ledger",
    "Limits",
    "apply",
    "deadlines_of",
    "deadlines_of_commands",
    "due_of",
]

_NONE: Final[Any] = ()
NEW_VALUES: Final = Effects(
    ledger=_NONE,
    removed=_NONE,
    changes=_NONE,
    downlinks=_NONE,
    replies=_NONE,
    deadlines=_NONE,
    changed=True,
)
"""What `apply` returns for nearly every record: telemetry whose values are all newer, and nothing else
to do. One object for all (an `Effects` for each took a third of the time), so it has no lists."""


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
    made = twin is None
    if twin is None:
        effects = Effects()
        if not _makes_twin(record, position, context, effects):
            return None, effects
        twin = create(record.vehicle_id, at)
    elif was_applied(twin, position):
        return twin, Effects(repeated=True)
    elif type(record) is Sample and twin["presence"]["state"] != "stale":
        return twin, _plain_telemetry(twin, record, position, at)
    else:
        effects = Effects()
    step = Step(twin, ledger, position, at, context, effects)
    if made:
        twin["causes"] = {CREATED: step.place}
        step.change("created", {"by": position["topic"]})
    kept = True
    if isinstance(record, Sample):
        _telemetry(step, record)
    elif isinstance(record, RequestInput):
        kept = replies.answer(step, record.record, made)
    else:
        _message(step, record)
    twin["applied"][position["topic"]] = [position["partition"], position["offset"]]
    if effects.changed:
        twin["revision"] += 1
        twin["updated_at"] = at
        twin["causes"] = {**twin.get("causes", {}), REVISION: revised(position, twin["revision"])}
        effects.ledger.extend(step.touched.values())
    effects.revision = twin["revision"]
    for reply in effects.replies:
        reply["revision"] = twin["revision"]
    return twin if kept else None, effects


def deadlines_of(twin: Twin, context: Context) -> list[Deadline]:
    """All deadlines of a twin, to rebuild the heap after a recovery; `reported` is not looked at."""
    vehicle_id, status = twin["vehicle_id"], twin["presence"]
    found: list[tuple[int | None, DeadlineOf, str]] = [
        (presence.next_due(status, context), "presence", str(status["session"]))
    ]
    # Nearly every twin has neither of these, and a restart asks for all twins.
    if twin["desired"]["status"]:
        versions = {str(version) for version, _ in desired.open_until(twin).values()}
        found += [(desired.next_due(twin, ref), "desired", ref) for ref in sorted(versions)]
    for ref in twin.get("decisions", ()):
        found.append((approval.next_due(twin, ref), "decision", ref))
    return [Deadline(due, vehicle_id, of, ref) for due, of, ref in found if due is not None]


def deadlines_of_commands(commands: Iterable[Command], context: Context) -> list[Deadline]:
    """All deadlines of ledger entries."""
    found = [(next_due(command, context.overdue_after_ms), command) for command in commands]
    return [
        Deadline(due, command["vehicle_id"], "command", command["id"])
        for due, command in found
        if due is not None
    ]


def due_of(twin: Twin, ledger: Ledger, of: DeadlineOf, ref: str, context: Context) -> int | None:
    """When a deadline that was asked for is due by now (ms); None when it is outdated.

    So a heap need not make records of deadlines that would do nothing: an online car puts its own
    off with each telemetry record. `ref` of a command must be a command id of this vehicle.
    """
    if of == "presence":
        current = ref == str(twin["presence"]["session"])
        return presence.next_due(twin["presence"], context) if current else None
    if of == "command":
        command = ledger.get(ref)
        return None if command is None else next_due(command, context.overdue_after_ms)
    return desired.next_due(twin, ref) if of == "desired" else approval.next_due(twin, ref)


def _makes_twin(record: Input, position: Position, context: Context, effects: Effects) -> bool:
    """Whether a record of a vehicle without a twin makes one; otherwise says why not."""
    if isinstance(record, Sample | PresenceInput | ReportedInput):
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
        effects.replies.append(replies.refused(record.record, refusal))
        return False


def _plain_telemetry(twin: Twin, sample: Sample, position: Position, at: int) -> Effects:
    """The hot path: telemetry of a twin that is there and not stale touches nothing but values."""
    newer = _observe(twin, sample, position["offset"], at)
    twin["applied"][position["topic"]] = [position["partition"], position["offset"]]
    if newer:
        twin["revision"] += 1
        twin["updated_at"] = at
        late = len(sample.names) - newer
        if not late:
            return NEW_VALUES
        lateness.count(twin, sample, newer)
        return Effects(late=late, changed=True)
    duplicate = lateness.count(twin, sample, newer)
    return Effects(late=len(sample.names), duplicate=duplicate, outdated=True)


def _telemetry(step: Step, sample: Sample) -> None:
    """Telemetry that makes the twin or finds it stale."""
    effects, presence_before = step.effects, step.twin["presence"]
    newer = _observe(step.twin, sample, step.why["offset"], step.at)
    effects.late = len(sample.names) - newer
    effects.outdated = not newer
    effects.changed = effects.changed or newer > 0
    if effects.late:
        effects.duplicate = lateness.count(step.twin, sample, newer)
    if newer and presence_before["state"] == "stale" and _is_of(presence_before, sample):
        presence.on_telemetry(step)
        _speak(step)


def _observe(twin: Twin, sample: Sample, offset: int, at: int) -> int:
    """Fold the values and note that the car was heard; returns how many were newer."""
    newer = fold(twin, sample, offset)
    status = twin["presence"]
    if newer and _is_of(status, sample):
        status["seen"] = max(status["seen"], at)
    return newer


def _is_of(status: TwinPresence, sample: Sample) -> bool:
    """Whether a record belongs to the session of a presence that counts its data.

    Session 0: a car that does not number its sessions has only this one.
    """
    return sample.session in (0, status["session"]) and "seen" in status


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
        kind = record.record["kind"]
        if kind == "desired":
            desired.on_delivery(step, record.record)
        elif kind == "forget":
            step.effects.outdated = True  # it is about a twin that was deleted
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
    elif record.of == "decision":
        approval.on_deadline(step, record.ref, record.due)
    else:
        desired.on_deadline(step, record.ref, record.due)

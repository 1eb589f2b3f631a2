"""Requests decided and answered: what is asked of a twin, and the one reply that each gets.

request -> asked before? -> decided by kind -> accepted: remembered, if it has a key -> reply
                                            -> refused: code and sentence            -> reply
"""

from typing import Any

from twin import approval, asked, attributes, desired, dispatch, ledger
from twin.effects import Refusal
from twin.step import Step
from twin.wire.records import Asked, Reply, Request


def answer(step: Step, request: Request, made: bool) -> bool:
    """Decide a request and answer it; False when there is no twin afterwards.

    `made`: this request makes the twin, so a refusal leaves none.
    """
    effects = step.effects
    first = asked.find(step.twin, request, step.at)
    if first is not None:
        effects.outdated = True
        again = reply(request, first["status"], _body_again(step, first))
        again["body_hash"] = first["hash"]
        effects.replies.append(again)
        return True
    try:
        status, body = _decide(step, request, made)
    except Refusal as refusal:
        effects.replies.append(refused(request, refusal))
        if made:
            effects.changes.clear()
            effects.changed = False
        return not made
    if effects.changed:
        ref = body.get("id", request["body"].get("rule"))
        asked.remember(step.twin, request, status, step.at, step.why["offset"], ref)
    effects.replies.append(reply(request, status, body))
    return request["kind"] != "delete"


def refused(request: Request, refusal: Refusal) -> Reply:
    """The owner says no."""
    no = reply(request, refusal.status, refusal.body)
    no["code"] = refusal.code
    no["detail"] = refusal.detail
    return no


def reply(request: Request, status: int, body: dict[str, Any]) -> Reply:
    """The answer to a request; its revision is that of the twin when the record is applied."""
    made = Reply(
        request_id=request["request_id"],
        vehicle_id=request["vehicle_id"],
        status=status,
        body=body,
        revision=0,
    )
    if "body_hash" in request:
        made["body_hash"] = request["body_hash"]
    return made


def _decide(step: Step, request: Request, made: bool) -> tuple[int, dict[str, Any]]:
    kind = request["kind"]
    if kind == "desired":
        return desired.on_request(step, request)
    if kind == "command":
        return ledger.on_request(step, request)
    if kind == "cancel":
        return ledger.on_cancel(step, request)
    if kind == "approval":
        return approval.on_request(step, request)
    if kind == "attributes":
        values = attributes.read(request, step.context.limits)
        attributes.replace(step, values, request["by"])
        return 201 if made else 200, dict(values)
    _delete(step, request)
    return 204, {}


def _body_again(step: Step, first: Asked) -> dict[str, Any]:
    """What the first decision was about, as it is now."""
    kind, ref = first["kind"], first.get("ref", "")
    if kind == "desired":
        return desired.view(step)
    if kind == "attributes":
        return dict(step.twin["attributes"])
    if kind == "approval" and first["status"] == 200:
        return dict(step.twin.get("decisions", {}).get(ref, {}))
    command = step.command(ref)
    return {"id": ref} if command is None else ledger.answer_of(command)


def _delete(step: Step, request: Request) -> None:
    """Everything that belongs to the twin goes with it; the car is told to drop what it may have,
    and its broker to forget its status, which would make the twin anew.
    """
    opened = step.twin["commands"]["open"]
    for command_id in opened:
        command = step.command(command_id)
        if command is not None and command["attempts"] and step.online:
            dispatch.send_cancel(step, command_id)
    dispatch.send_forget(step)
    step.effects.removed.extend(command["id"] for command in step.ledger.of(step.vehicle_id))
    step.change("deleted", {"by": request["by"], "commands": list(opened)})

"""Approval: a rule that asks first, and what becomes of its question.

    awaiting_approval -> approve -> interlocks once more -> command | refusal, still awaiting
                      -> refuse  -> nothing more in this episode
                      -> time, or the state of health has passed -> lapsed

Each answer and each end is told. The interlocks are judged again when somebody agrees, since the car
may have driven off meanwhile; if one refuses, the question stays open until it lapses. The command's
`cause` is the score that asked, and who approved.
"""

from typing import Any

from twin.decide import episode_of, give, keep, lapse, refusal_of, with_memory
from twin.effects import Refusal
from twin.ledger import answer_of, open_command
from twin.policy import Rule
from twin.step import Step
from twin.wire.records import Decision, Request, Twin


def on_request(step: Step, request: Request) -> tuple[int, dict[str, Any]]:
    """Decide an answer: 201 with the command, or 200 with the decision that refuses it.

    Raises `Refusal`; an interlock's is told first.
    """
    verdict = request["body"].get("verdict")
    if verdict not in ("approve", "refuse"):
        raise Refusal(
            400,
            "bad_request",
            f"verdict is {str(verdict)[:40]!r}; approve or refuse is accepted",
        )
    rule, asked = _open_question(step, request["body"].get("rule"))
    if step.at >= asked.get("until", 0):
        lapse(step, rule.name, asked, "not_answered")
        raise _closed(rule.name, step.twin.get("decisions", {})[rule.name])
    if verdict == "refuse":
        return 200, _deny(step, rule, asked, request["by"])
    passed = step.twin["health"]["state"] != rule.health
    cause = asked.get("cause")
    reason = "health_passed" if passed else refusal_of(step, rule, asked, cause)
    if reason is not None or cause is None:
        raise _held(step, rule, asked, reason or "no_evidence", request["by"])
    order = give(step, rule, asked["score_id"], cause, request["by"])
    return 201, answer_of(open_command(step, order))


def on_deadline(step: Step, ref: str, due: int) -> None:
    """Nobody has answered rule `ref` in time."""
    asked = step.twin.get("decisions", {}).get(ref)
    until = next_due(step.twin, ref)
    if asked is None or until is None or until > due:
        step.effects.outdated = True
        if until is not None:
            step.arm("decision", ref, until)
    else:
        lapse(step, ref, asked, "not_answered")


def next_due(twin: Twin, ref: str) -> int | None:
    """When the question of rule `ref` lapses (ms); None when there is none."""
    asked = twin.get("decisions", {}).get(ref)
    return asked.get("until") if asked and asked["verdict"] == "awaiting_approval" else None


def _open_question(step: Step, name: object) -> tuple[Rule, Decision]:
    decisions = step.twin.get("decisions", {})
    rule = next((rule for rule in step.context.policy.rules if rule.name == name), None)
    if rule is None or rule.name not in decisions:
        known = ", ".join(sorted(decisions)) or "none"
        raise Refusal(
            404,
            "decision_not_found",
            f"{step.vehicle_id} has no decision of a rule {str(name)[:80]!r}; it has: {known}",
        )
    asked = decisions[rule.name]
    if asked["verdict"] != "awaiting_approval":
        raise _closed(rule.name, asked)
    return rule, asked


def _closed(name: str, decision: Decision) -> Refusal:
    body: dict[str, str] = {"verdict": decision["verdict"]}
    if "command" in decision:
        body["command"] = decision["command"]
    return Refusal(
        409,
        "not_awaiting_approval",
        f"the decision of rule {name} is {decision['verdict']}; it awaits no approval",
        body,
    )


def _deny(step: Step, rule: Rule, asked: Decision, by: str) -> dict[str, Any]:
    decision = Decision(
        verdict="refused",
        at=step.at,
        score_id=asked["score_id"],
        reason="not_approved",
        denied=episode_of(step.twin),
        by=by,
    )
    keep(step, rule.name, with_memory(decision, asked))
    _tell_refusal(step, rule, asked, "not_approved", by)
    return dict(decision)


def _held(step: Step, rule: Rule, asked: Decision, reason: str, by: str) -> Refusal:
    keep(step, rule.name, {**asked, "reason": reason, "by": by})
    _tell_refusal(step, rule, asked, reason, by)
    return Refusal(
        409,
        "interlock_refused",
        f"the interlock {reason} refuses {rule.command}; the decision still awaits approval",
        {"reason": reason, "until": asked.get("until")},
    )


def _tell_refusal(step: Step, rule: Rule, asked: Decision, reason: str, by: str) -> None:
    what = {
        "verdict": "refused",
        "name": rule.command,
        "reason": reason,
        "score_id": asked["score_id"],
        "by": by,
    }
    step.change("decision", what, rule=rule.name)

"""Decisions: health asks, interlocks agree or refuse, and what comes out is a command with its cause.

    score taken -> rule of this state of health -> interlocks -> Order | refusal

Every decision is told, and every refusal when its reason changes: a car in alarm that cannot be
commanded says so once and not with each score. The command's id follows from score and rule, so a
replay gives the same command. Interlocks, in this order: kill switch, evidence, online, fresh
signals, one open command of the name, done already in this episode, cool-down, room for one more.
An episode is one alert, or one stay in the state of health when there is none.
"""

from twin.policy import Requirement, Rule
from twin.step import Order, Step
from twin.wire.ids import command_id
from twin.wire.records import Cause, Decision, ModelScore, Score, Twin


def decide(step: Step, score: Score) -> list[Order]:
    """The commands that a score just taken into the twin's health asks for; tells its decisions."""
    orders: list[Order] = []
    for rule in step.context.policy.rules:
        if step.twin["health"]["state"] == rule.health:
            order = _judge(step, rule, score, pending=orders)
            if order is not None:
                orders.append(order)
        else:
            _rest(step, rule, score)
    return orders


def _judge(step: Step, rule: Rule, score: Score, pending: list[Order]) -> Order | None:
    before = step.twin.get("decisions", {}).get(rule.name)
    cause = _cause(step, rule, score)
    reason = _refusal(step, rule, before, cause, pending)
    if reason is not None or cause is None:
        if before is None or before["verdict"] != "refused" or before.get("reason") != reason:
            _refuse(step, rule, score, before, reason or "")
        return None
    order = Order(
        id=command_id(step.vehicle_id, step.at, f"{score['id']}:{rule.name}"),
        name=rule.command,
        args=rule.args,
        lane=rule.lane,
        ttl_ms=rule.ttl_ms,
        by=f"rule:{rule.name}",
        cause=cause,
    )
    _keep(
        step,
        rule,
        Decision(
            verdict="command",
            at=step.at,
            score_id=score["id"],
            command=order.id,
            fired_at=step.at,
            episode=_episode(step.twin),
        ),
    )
    step.change(
        "decision",
        {"verdict": "command", "command": order.id, "name": order.name, "cause": cause},
        rule=rule.name,
    )
    return order


def _refusal(
    step: Step, rule: Rule, before: Decision | None, cause: Cause | None, pending: list[Order]
) -> str | None:
    """The first interlock that says no; None when all agree."""
    if not step.context.policy.enabled:
        return "policy_off"
    if cause is None:
        return "no_evidence"
    if not step.online:
        return "not_online"
    for requirement in rule.require:
        fault = _signal_fault(step, requirement)
        if fault is not None:
            return f"{fault}:{requirement.signal}"
    return _history_fault(step, rule, before) or _room_fault(step, rule, pending)


def _signal_fault(step: Step, requirement: Requirement) -> str | None:
    entry = step.twin["reported"].get(requirement.signal)
    if entry is None:
        return "signal_missing"
    if "q" in entry:
        return "signal_suspect"
    if step.at - entry["t"] > requirement.max_age_ms:
        return "signal_old"
    low, high = requirement.at_least, requirement.at_most
    if (low is not None and entry["v"] < low) or (high is not None and entry["v"] > high):
        return "signal_out_of_bounds"
    return None


def _history_fault(step: Step, rule: Rule, before: Decision | None) -> str | None:
    for other in step.twin["commands"]["open"]:
        command = step.command(other)
        if command is not None and command["name"] == rule.command:
            return "command_open"
    if before is None or "command" not in before:
        return None
    last = step.command(before["command"])
    if before.get("episode") == _episode(step.twin) and last and last["state"] == "succeeded":
        return "done_already"
    if step.at - before.get("fired_at", 0) < rule.cool_down_ms:
        return "cool_down"
    return None


def _room_fault(step: Step, rule: Rule, pending: list[Order]) -> str | None:
    if any(order.name == rule.command for order in pending):
        return "command_open"
    opened = len(step.twin["commands"]["open"]) + len(pending)
    return "too_many_open_commands" if opened >= step.context.limits.open_commands else None


def _refuse(step: Step, rule: Rule, score: Score, before: Decision | None, reason: str) -> None:
    decision = Decision(verdict="refused", at=step.at, score_id=score["id"], reason=reason)
    _keep(step, rule, _with_memory(decision, before))
    step.change(
        "decision",
        {
            "verdict": "refused",
            "name": rule.command,
            "reason": reason,
            "score_id": score["id"],
        },
        rule=rule.name,
    )


def _rest(step: Step, rule: Rule, score: Score) -> None:
    """The state has passed: the next refusal is told again, cool-down goes on."""
    before = step.twin.get("decisions", {}).get(rule.name)
    if before is not None and before["verdict"] != "idle":
        rested = Decision(verdict="idle", at=step.at, score_id=score["id"])
        _keep(step, rule, _with_memory(rested, before))


def _with_memory(decision: Decision, before: Decision | None) -> Decision:
    if before is not None and "command" in before:
        decision["command"] = before["command"]
        decision["fired_at"] = before.get("fired_at", before["at"])
        decision["episode"] = before.get("episode", 0)
    return decision


def _keep(step: Step, rule: Rule, decision: Decision) -> None:
    """Only rules of today's policy are remembered."""
    known = {other.name for other in step.context.policy.rules}
    decisions = step.twin.get("decisions", {})
    step.twin["decisions"] = {
        **{name: kept for name, kept in decisions.items() if name in known},
        rule.name: decision,
    }
    step.effects.changed = True


def _episode(twin: Twin) -> int:
    health = twin["health"]
    return health["alert"]["since"] if "alert" in health else health["since"]


def _cause(step: Step, rule: Rule, score: Score) -> Cause | None:
    """The model that is furthest over its threshold; None when none gives value and threshold."""
    best: tuple[float, str] | None = None
    models = step.twin["health"]["models"]
    for name, model in models.items():
        value, threshold = _value(model), model.get("threshold")
        if value is None or threshold is None or threshold <= 0:
            continue
        if best is None or value / threshold > best[0]:
            best = (value / threshold, name)
    if best is None:
        return None
    model = models[best[1]]
    value = _value(model)
    assert value is not None
    return Cause(
        score=score["id"],
        topic=step.why["topic"],
        partition=step.why["partition"],
        offset=step.why["offset"],
        model=best[1],
        version=model["version"],
        value=value,
        threshold=model["threshold"],
        signals=model.get("signals", []),
        rule=rule.name,
    )


def _value(model: ModelScore) -> float | None:
    return model.get("score", model.get("failure_probability"))

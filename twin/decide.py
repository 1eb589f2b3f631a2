"""Decisions: health asks, interlocks agree or refuse, and what comes out is a command with its cause.

    score taken -> rule of this state of health -> interlocks -> Order | awaiting approval | refusal

Every decision is told, and every refusal when its reason changes: a car in alarm that cannot be
commanded says so once and not with each score. The command's id follows from record and rule, so a
replay gives the same command. Interlocks, in this order: kill switch, evidence, online, fresh
signals, one open command of the name, denied or done already in this episode, cool-down, room for one
more, rate cap. An episode is one alert, or one stay in the state of health when there is none.

The rate cap of a rule bounds its commands per fleet and minute. An owner sees its partition only, so
each partition has an equal share of the cap, and at least 1: with fewer than one command a minute and
partition the fleet's sum may be the number of partitions. It is counted in the ledger, so whoever takes
over decides the same. Rules with `approval` ask somebody first: see `twin.approval`.
"""

from collections.abc import Sequence
from typing import Final

from twin import causes
from twin.policy import Requirement, Rule
from twin.step import Order, Step
from twin.wire.ids import command_id
from twin.wire.records import Cause, Decision, ModelScore, Score, Twin

_MINUTE_MS: Final = 60_000


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


def give(step: Step, rule: Rule, score_id: str, cause: Cause, by: str | None = None) -> Order:
    """The decision for a command: kept and told; the caller opens it. `by`: who approved it."""
    if by is not None:
        cause = {**cause, "approved_by": by}
    order = Order(
        id=command_id(step.vehicle_id, step.at, f"{step.source}:{rule.name}"),
        name=rule.command,
        args=rule.args,
        lane=rule.lane,
        ttl_ms=rule.ttl_ms,
        by=f"rule:{rule.name}",
        cause=cause,
        fleet=_fleet(step.twin),
    )
    decision = Decision(
        verdict="command",
        at=step.at,
        score_id=score_id,
        command=order.id,
        fired_at=step.at,
        episode=episode_of(step.twin),
    )
    what = {"verdict": "command", "command": order.id, "name": order.name, "cause": cause}
    if by is not None:
        decision["by"] = what["by"] = by
    keep(step, rule.name, decision)
    step.change("decision", what, rule=rule.name)
    return order


def refusal_of(
    step: Step,
    rule: Rule,
    before: Decision | None,
    cause: Cause | None,
    pending: Sequence[Order] = (),
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
    return (
        _history_fault(step, rule, before)
        or _room_fault(step, rule, pending)
        or _rate_fault(step, rule)
    )


def lapse(step: Step, name: str, before: Decision, reason: str) -> None:
    """Nobody has approved, and it is of no use any more."""
    decision = Decision(verdict="lapsed", at=step.at, score_id=before["score_id"], reason=reason)
    keep(step, name, with_memory(decision, before))
    what = {"verdict": "lapsed", "reason": reason, "score_id": before["score_id"]}
    step.change("decision", what, rule=name)


def with_memory(decision: Decision, before: Decision | None) -> Decision:
    """What later decisions depend on goes on: the last command, and an episode that was denied."""
    if before is not None and "command" in before:
        decision["command"] = before["command"]
        decision["fired_at"] = before.get("fired_at", before["at"])
        decision["episode"] = before.get("episode", 0)
    if before is not None and "denied" in before:
        decision.setdefault("denied", before["denied"])
    return decision


def keep(step: Step, name: str, decision: Decision) -> None:
    """Remember what a rule decided; only rules of today's policy are remembered."""
    known = {rule.name for rule in step.context.policy.rules} | {name}
    decisions = step.twin.get("decisions", {})
    after = {**{n: kept for n, kept in decisions.items() if n in known}, name: decision}
    step.twin["decisions"] = after
    step.twin["causes"] = causes.named(
        step.twin.get("causes", {}), ("decisions",), [name], after, step.place
    )
    step.effects.changed = True


def episode_of(twin: Twin) -> int:
    """Since when the alert is open, or else the state of health lasts (ms)."""
    health = twin["health"]
    return health["alert"]["since"] if "alert" in health else health["since"]


def _judge(step: Step, rule: Rule, score: Score, pending: list[Order]) -> Order | None:
    before = step.twin.get("decisions", {}).get(rule.name)
    if rule.approval and before is not None and before["verdict"] == "awaiting_approval":
        return None
    cause = _cause(step, rule, score)
    reason = refusal_of(step, rule, before, cause, pending)
    if reason is not None or cause is None:
        if before is None or before["verdict"] != "refused" or before.get("reason") != reason:
            _refuse(step, rule, score, before, reason or "")
        return None
    if rule.approval:
        _ask(step, rule, score, before, cause)
        return None
    return give(step, rule, score["id"], cause)


def _ask(step: Step, rule: Rule, score: Score, before: Decision | None, cause: Cause) -> None:
    until = step.at + rule.approval_ttl_ms
    decision = Decision(
        verdict="awaiting_approval", at=step.at, score_id=score["id"], until=until, cause=cause
    )
    keep(step, rule.name, with_memory(decision, before))
    what = {"verdict": "awaiting_approval", "name": rule.command, "until": until, "cause": cause}
    step.change("decision", what, rule=rule.name)
    step.arm("decision", rule.name, until)


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
    if before is not None and before.get("denied") == episode_of(step.twin):
        return "not_approved"
    if before is None or "command" not in before:
        return None
    last = step.command(before["command"])
    if before.get("episode") == episode_of(step.twin) and last and last["state"] == "succeeded":
        return "done_already"
    if step.at - before.get("fired_at", 0) < rule.cool_down_ms:
        return "cool_down"
    return None


def _room_fault(step: Step, rule: Rule, pending: Sequence[Order]) -> str | None:
    if any(order.name == rule.command for order in pending):
        return "command_open"
    opened = len(step.twin["commands"]["open"]) + len(pending)
    if opened >= step.context.limits.open_commands:
        return "too_many_open_commands"
    known = step.ledger.count(step.vehicle_id) + len(pending)
    return "too_many_commands" if known >= step.context.limits.day_commands else None


def _rate_fault(step: Step, rule: Rule) -> str | None:
    cap = rule.max_per_fleet_per_minute
    if cap is None:
        return None
    given = step.ledger.recent(rule.name, _fleet(step.twin), step.at - _MINUTE_MS)
    share = share_of(cap, step.context.partitions, step.why["partition"])
    return "rate_cap" if given >= share else None


def share_of(cap: int, partitions: int, partition: int) -> int:
    """How much of a cap a partition may use: an equal share, at least 1; in all `cap` if it can be."""
    return max(1, cap // partitions + (partition < cap % partitions))


def _refuse(step: Step, rule: Rule, score: Score, before: Decision | None, reason: str) -> None:
    decision = Decision(verdict="refused", at=step.at, score_id=score["id"], reason=reason)
    keep(step, rule.name, with_memory(decision, before))
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
    if before is None or before["verdict"] == "idle":
        return
    if before["verdict"] == "awaiting_approval":
        # As with an alert, only a judgement says that it is over.
        if step.twin["health"]["state"] != "insufficient_data":
            lapse(step, rule.name, before, "health_passed")
        return
    rested = Decision(verdict="idle", at=step.at, score_id=score["id"])
    keep(step, rule.name, with_memory(rested, before))


def _fleet(twin: Twin) -> str:
    return twin["attributes"].get("fleet", "")


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

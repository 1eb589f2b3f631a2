"""Desired against config: what is wanted of a car, what it confirmed, and what is left (`delta`).

    request desired -> properties, version + 1 -> delta -> to the car when online
    delivery        -> sent: pending properties are sent | refused: their status says why
    reported        -> config -> delta again -> acked | diverged

The delta is always computed, never kept by hand. Each property of it is said to the car once per
session and version, whatever makes it differ; what the broker refuses waits for the next one, or every
refusal would be followed by the next. `expired` (unconfirmed for too long) is a notice like
a command's overdue: the property is still wanted and said again, and a late confirmation wins.

A car confirms only what it knows. A property that it does not know stays `sent` (`pending` while the
broker has not taken it) and part of the delta, is said once in each new session, and shows as
`expired` after `desired_ttl_ms`. null means not wanted any more: the property leaves `desired`, and the
car's own value stays.
"""

from collections.abc import Mapping
from typing import Any, Final

from twin import causes
from twin.effects import Refusal
from twin.patch import check_shape, difference, equal
from twin.step import Step
from twin.wire.errors import Reason, TooLarge
from twin.wire.merge import merge_patch
from twin.wire.records import (
    Confirmed,
    Delivery,
    Desired,
    PropertyState,
    PropertyStatus,
    Reported,
    Request,
    Twin,
)

REASON_LENGTH: Final = 64
"""Of a refusal in the status of each property; the downlink's are words of some 20 characters."""

_OPEN: Final[tuple[PropertyState, ...]] = ("pending", "sent")
_REASONS: Final[dict[str, Reason]] = {"too_deep": "too_deep", "document_too_large": "too_large"}


def on_request(step: Step, request: Request) -> tuple[int, dict[str, Any]]:
    """Decide a PATCH or PUT; status and body of the answer. Raises `Refusal` and changes nothing."""
    operation, value = _read(step, request)
    twin, desired = step.twin, step.twin["desired"]
    wanted = request.get("if_match")
    if wanted is not None and wanted != desired["version"]:
        raise Refusal(
            412,
            "version_mismatch",
            f"desired is at version {desired['version']}, not {wanted}",
            {"version": desired["version"]},
        )
    # A merge patch of nothing drops nulls, which desired cannot hold: null means not wanted.
    before = desired["properties"] if operation == "patch" else {}
    properties = merge_patch(before, value)
    delta = difference(properties, twin["config"])
    after: Desired = {
        **desired,
        "version": desired["version"] + 1,
        "properties": properties,
    }
    after["status"] = _asserted(step, after, delta, value)
    because = _because_asked(step, value, before, after)
    step.fit({"desired": after, "delta": delta, "causes": because})
    twin["desired"], twin["delta"], twin["causes"] = after, delta, because
    step.change(
        "desired",
        {
            "version": after["version"],
            "op": operation,
            "value": value,
            "by": request["by"],
            "status": {n: s["state"] for n, s in after["status"].items() if n in value},
        },
    )
    if delta:
        step.arm("desired", str(after["version"]), step.at + step.context.desired_ttl_ms)
    offer(step)
    return 200, view(step)


def on_reported(step: Step, record: Reported) -> None:
    """The car confirms configuration; older than what is known (session, sequence) is ignored."""
    twin, properties = step.twin, record["properties"]
    last = twin.get("confirmed")
    if last and (record["session"], record["sequence"]) <= (last["session"], last["sequence"]):
        step.effects.outdated = True
        return
    try:
        check_shape(properties, "reported", step.context.limits)
        config = merge_patch(twin["config"], properties)
        delta = difference(twin["desired"]["properties"], config)
        because = causes.merged(
            twin.get("causes", {}), ("config",), properties, twin["config"], config, step.place
        )
        step.fit({"config": config, "delta": delta, "causes": because})
    except Refusal as refusal:
        step.effects.rejected = TooLarge(
            refusal.detail, reason=_REASONS.get(refusal.code, "limit_reached")
        )
        return
    confirmed = Confirmed(
        event_time=record["event_time"],
        session=record["session"],
        sequence=record["sequence"],
        offset=step.why["offset"],
    )
    if "desired_version" in record:
        confirmed["desired_version"] = record["desired_version"]
    same = equal(config, twin["config"])
    twin["config"], twin["delta"], twin["confirmed"] = config, delta, confirmed
    twin["causes"] = because
    step.effects.changed = True
    if not same:
        what: dict[str, Any] = {"properties": properties}
        if "desired_version" in record:
            what["desired_version"] = record["desired_version"]
        step.change("config", what)
    _confirm(step, record)
    offer(step)


def on_delivery(step: Step, record: Delivery) -> None:
    """The broker took the delta of a version: what was pending up to it is sent. Or it says why not.

    A refusal changes no state: `sent` in one session may be refused in the next.
    """
    if not record["ref"].isdecimal():
        step.effects.outdated = True
        return
    version = int(record["ref"])
    asked = {
        name: status
        for name, status in step.twin["desired"]["status"].items()
        if status["state"] != "acked" and status["version"] <= version
    }
    after: dict[str, PropertyStatus] = {}
    if record["state"] == "refused":
        reason = (record.get("reason") or "refused by the broker")[:REASON_LENGTH]
        for name, status in asked.items():
            if status.get("reason") != reason:
                after[name] = {**status, "reason": reason}
        _tell_statuses(step, after, session=record["session"], reason=reason)
        return
    for name, status in asked.items():
        if status["state"] == "pending":
            after[name] = _status(step, status, "sent")
        elif "reason" in status:
            after[name] = status.copy()
            del after[name]["reason"]
    _tell_statuses(step, after)


def on_deadline(step: Step, ref: str, due: int) -> None:
    """Properties last asked for in version `ref` and still unconfirmed are expired."""
    until = _until(step.twin, ref)
    _set_states(step, {name: "expired" for name, end in until.items() if end <= due})
    later = [end for end in until.values() if end > due]
    if later:
        step.arm("desired", ref, min(later))


def next_due(twin: Twin, ref: str) -> int | None:
    """When a property last asked for in version `ref` shows as expired (ms); None when none does."""
    return min(_until(twin, ref).values(), default=None)


def open_until(twin: Twin) -> dict[str, tuple[int, int]]:
    """Unconfirmed properties: version that asked for them, and when they expire (ms)."""
    return {
        name: (status["version"], status["until"])
        for name, status in twin["desired"]["status"].items()
        if status["state"] in _OPEN and "until" in status
    }


def offer(step: Step) -> None:
    """Say the delta to an online car, if it has parts not yet said in this session and version."""
    desired, delta = step.twin["desired"], step.twin["delta"]
    if not delta or not step.online:
        return
    session, version = step.twin["presence"]["session"], desired["version"]
    offered = desired.get("offered")
    said: list[str] = []
    if offered and offered["version"] == version and offered["session"] == session:
        said = offered["keys"]
    if all(name in said for name in delta):
        return
    keys = list(dict.fromkeys([*said, *delta]))
    step.twin["desired"] = {
        **desired,
        "offered": {"version": version, "session": session, "keys": keys},
    }
    step.because("/desired/offered")
    step.send("desired", str(version), {"version": version, "delta": delta})


def view(step: Step) -> dict[str, Any]:
    """What a reader of `desired` gets."""
    desired = step.twin["desired"]
    return {
        "version": desired["version"],
        "properties": desired["properties"],
        "status": desired["status"],
        "delta": step.twin["delta"],
    }


def _read(step: Step, request: Request) -> tuple[str, dict[str, Any]]:
    operation, value = request["body"].get("op"), request["body"].get("value")
    if operation not in ("patch", "put"):
        raise Refusal(
            400, "bad_request", f"op is {str(operation)[:40]!r}; patch or put is accepted"
        )
    if not isinstance(value, dict):
        raise Refusal(
            400, "bad_request", f"desired is {type(value).__name__}; a JSON object is accepted"
        )
    check_shape(value, "desired", step.context.limits)
    return operation, value


def _until(twin: Twin, ref: str) -> dict[str, int]:
    """Unconfirmed properties that version `ref` asked for, and when they expire (ms)."""
    return {name: end for name, (version, end) in open_until(twin).items() if str(version) == ref}


def _because_asked(
    step: Step, value: Mapping[str, Any], before: Mapping[str, Any], after: Desired
) -> dict[str, str]:
    """The version is of this request, and so are the members of `value`, merged into `before`."""
    known = step.twin.get("causes", {})
    kept = causes.merged(
        known, ("desired", "properties"), value, before, after["properties"], step.place
    )
    kept = causes.named(kept, ("desired", "status"), value, after["status"], step.place)
    return {**kept, "/desired": step.place}


def _asserted(
    step: Step, desired: Desired, delta: Mapping[str, Any], value: Mapping[str, Any]
) -> dict[str, PropertyStatus]:
    """Statuses after a request that names the members of `value`: those begin anew."""
    before = step.twin["desired"]["status"]
    statuses: dict[str, PropertyStatus] = {}
    for name in desired["properties"]:
        if name in before and name not in value:
            statuses[name] = before[name]
            continue
        status = PropertyStatus(
            state="pending" if name in delta else "acked",
            since=step.at,
            version=desired["version"],
        )
        if name in delta:
            status["until"] = step.at + step.context.desired_ttl_ms
        statuses[name] = status
    return statuses


def _confirm(step: Step, record: Reported) -> None:
    """Statuses after the car's word: what agrees is acked, what it refused has diverged."""
    delta, known = step.twin["delta"], record.get("desired_version", -1)
    states: dict[str, PropertyState] = {}
    for name, status in step.twin["desired"]["status"].items():
        if name not in delta:
            states[name] = "acked"
        elif name in record["properties"] and known >= status["version"]:
            states[name] = "diverged"
        elif status["state"] == "acked":
            # The car went back on its own, so it is asked again.
            states[name] = "pending"
            step.arm("desired", str(status["version"]), step.at + step.context.desired_ttl_ms)
    _set_states(step, states)


def _set_states(step: Step, states: Mapping[str, PropertyState]) -> None:
    statuses = step.twin["desired"]["status"]
    _tell_statuses(
        step,
        {
            name: _status(step, statuses[name], state)
            for name, state in states.items()
            if statuses[name]["state"] != state
        },
    )


def _status(step: Step, before: PropertyStatus, state: PropertyState) -> PropertyStatus:
    status = PropertyStatus(state=state, since=step.at, version=before["version"])
    if state == "pending":
        status["until"] = step.at + step.context.desired_ttl_ms
    elif state == "sent" and "until" in before:
        status["until"] = before["until"]
    elif state == "expired" and "reason" in before:
        status["reason"] = before["reason"]
    return status


def _tell_statuses(step: Step, changed: Mapping[str, PropertyStatus], **more: Any) -> None:
    if not changed:
        step.effects.outdated = not step.effects.changed
        return
    desired = step.twin["desired"]
    statuses = {**desired["status"], **changed}
    step.twin["desired"] = {**desired, "status": statuses}
    step.twin["causes"] = causes.named(
        step.twin.get("causes", {}), ("desired", "status"), changed, statuses, step.place
    )
    told = {name: status["state"] for name, status in changed.items()}
    step.change("desired", {"version": desired["version"], "status": told, **more})

"""Why a value of a twin is as it is: the record behind it, and the rule or model if there is one.

    document, "reported.coolant_temp" -> telemetry, partition, offset

Pure, over the public JSON document alone: signals carry the offset of their record (`o`), `applied` the
last record of each topic, `causes` the record behind each other part (written by `twin.causes`), and
what is computed (`delta`) names what it is computed from. The partition of a vehicle is the same on
every topic.
"""

from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict

from twin.wire import topics
from twin.wire.pointer import pointer, resolve
from twin.wire.records import Position

CREATED: Final = "/created_at"
"""In `causes`: the record that made the twin; it is behind all that no other has changed."""
REVISION: Final = "/revision"
"""In `causes`: the last record but plain telemetry that changed the twin, and its revision."""


class Explanation(TypedDict):
    """`path` as a JSON pointer; `record` is None for a part that is older than `causes`.

    `also`: further records that a computed value depends on. `models`: name -> version of what judged.
    `score`: id of the score behind it (vehicle:partition-offset:version of the telemetry it judged).
    """

    vehicle_id: str
    revision: int
    path: str
    value: Any
    record: Position | None
    how: str
    also: NotRequired[list[Position]]
    rule: NotRequired[str]
    models: NotRequired[dict[str, str]]
    score: NotRequired[str]
    command: NotRequired[str]


def explain(document: Mapping[str, Any], path: str) -> Explanation:
    """What is behind the value at `path` (dotted, or a JSON pointer). Raises `PathNotFound`."""
    names, value = resolve(document, path)
    cause, how = _behind(document, names, value)
    explanation = Explanation(
        vehicle_id=document["vehicle_id"],
        revision=document["revision"],
        path=pointer(*names),
        value=value,
        record=None if cause is None else position_of(cause, _partition(document)),
        how=how,
    )
    also = _also(document, names, cause)
    if also:
        explanation["also"] = [position_of(one, _partition(document)) for one in also]
    if names:
        _name_judges(document, names, explanation)
    return explanation


def cause_of(causes: Mapping[str, str], path: str) -> str | None:
    """The entry of the longest pointer that leads to `path`; else what made the twin."""
    while path:
        if path in causes:
            return causes[path]
        path = path.rpartition("/")[0]
    return causes.get(CREATED)


def position_of(cause: str, partition: int) -> Position:
    """The record that an entry of `causes` names."""
    topic, _, offset = cause.partition("@")[0].rpartition("/")
    return Position(topic=topic, partition=partition, offset=int(offset))


def revised(position: Position, revision: int) -> str:
    """The entry under REVISION."""
    return f"{position['topic']}/{position['offset']}@{revision}"


def _partition(document: Mapping[str, Any]) -> int:
    """The vehicle's, which every record applied to it came from."""
    return next((place[0] for place in document["applied"].values()), 0)


def _behind(
    document: Mapping[str, Any], names: tuple[str, ...], value: Any
) -> tuple[str | None, str]:
    """Cause of a value, and how it comes from it."""
    causes: Mapping[str, str] = document.get("causes", {})
    part = names[0] if names else ""
    known = cause_of(causes, pointer(*names))
    if part in ("vehicle_id", "created_at"):
        return known, "the record that made the twin"
    if part == "reported":
        return _of_signals(document, names, known)
    if part == "presence" and names[1:] == ("seen",):
        return _of_seen(document, known), "arrival of the last new telemetry of the session"
    if part == "config" and len(names) == 1 and "confirmed" in document:
        return _confirmed(document), "what the car said last of its configuration"
    if part == "delta":
        return _of_delta(document, names), "desired against config, computed"
    if part in _HOW:
        return known, _HOW[part]
    return _of_bookkeeping(document, names, value)


_HOW: Final = {
    "presence": "the status of the newest session, or the deadline that found the car silent",
    "health": "the newest score by event time",
    "attributes": "whoever spoke last: a birth of the car or a request",
    "config": "configuration that the car confirmed",
    "desired": "the request, or what was heard since of the property",
    "commands": "the last record that opened, moved or withdrew a command",
    "decisions": "the score, answer or deadline on which the rule decided",
}


def _of_signals(
    document: Mapping[str, Any], names: tuple[str, ...], known: str | None
) -> tuple[str | None, str]:
    reported = document["reported"]
    if len(names) > 1:
        offset = reported[names[1]]["o"]
        return f"{topics.TELEMETRY}/{offset}", "the newest value of the signal by event time"
    if not reported:
        return known, "no telemetry yet"
    return _newest_telemetry(document), "the newest telemetry record that set a value"


def _of_seen(document: Mapping[str, Any], known: str | None) -> str | None:
    """Telemetry leaves no entry; it is what has set `seen` when that is later than `since`."""
    presence = document["presence"]
    if presence["seen"] <= presence["since"]:
        return known
    return _newest_telemetry(document, presence["session"]) or known


def _of_delta(document: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    causes: Mapping[str, str] = document.get("causes", {})
    if len(names) > 1:
        return cause_of(causes, pointer("desired", "properties", *names[1:]))
    if not document["delta"] and "confirmed" in document:
        return _confirmed(document)
    return cause_of(causes, "/desired")


def _of_bookkeeping(
    document: Mapping[str, Any], names: tuple[str, ...], value: Any
) -> tuple[str | None, str]:
    part = names[0] if names else ""
    applied: Mapping[str, list[int]] = document["applied"]
    if part == "applied" and len(names) > 1:
        return f"{names[1]}/{applied[names[1]][1]}", "the last record of the topic that was applied"
    if part == "counts" and topics.TELEMETRY in applied:
        offset = applied[topics.TELEMETRY][1]
        return f"{topics.TELEMETRY}/{offset}", "counted up to this record"
    if part == "confirmed":
        return _confirmed(document), "the newest confirmation of the car"
    if part == "asked" and document["asked"]:
        requests = document["asked"]
        newest = max(one["o"] for one in requests.values())
        offset = requests[names[1]]["o"] if len(names) > 1 else newest
        return f"{topics.REQUESTS}/{offset}", "a keyed request that was accepted"
    if part == "causes" and len(names) > 1:
        return str(value), f"the record behind {names[1]}"
    return _last(document), "the last record that changed the twin"


def _last(document: Mapping[str, Any]) -> str | None:
    """What changed the twin last: plain telemetry if there were revisions after the noted one."""
    causes: Mapping[str, str] = document.get("causes", {})
    noted = causes.get(REVISION, causes.get(CREATED))
    if noted is None or int(noted.partition("@")[2] or 0) < document["revision"]:
        return _newest_telemetry(document) or noted
    return noted


def _newest_telemetry(document: Mapping[str, Any], session: int | None = None) -> str | None:
    offsets = [
        entry["o"]
        for entry in document["reported"].values()
        if session is None or entry["n"] in (0, session)
    ]
    return f"{topics.TELEMETRY}/{max(offsets)}" if offsets else None


def _confirmed(document: Mapping[str, Any]) -> str:
    return f"{topics.REPORTED}/{document['confirmed']['offset']}"


def _also(document: Mapping[str, Any], names: tuple[str, ...], cause: str | None) -> list[str]:
    """Of a delta: the car's word that it differs from."""
    if names[:1] != ("delta",) or "confirmed" not in document:
        return []
    configured = document["config"]
    for name in names[1:]:
        if not isinstance(configured, Mapping) or name not in configured:
            return []
        configured = configured[name]
    path = pointer("config", *names[1:])
    actual = cause_of(document.get("causes", {}), path) if len(names) > 1 else _confirmed(document)
    return [actual] if actual is not None and actual != cause else []


def _name_judges(
    document: Mapping[str, Any], names: tuple[str, ...], explanation: Explanation
) -> None:
    """Models behind health, the rule and score behind a decision."""
    if names[0] == "health":
        health = document["health"]
        wanted = names[2:3] if names[1:2] == ("models",) else ()
        models = {
            name: model["version"]
            for name, model in health["models"].items()
            if not wanted or name in wanted
        }
        if models:
            explanation["models"] = models
        alert = names[1:2] == ("alert",)
        score = health["alert"]["score_id"] if alert else health.get("score_id")
        if score is not None:
            explanation["score"] = score
    elif names[0] == "decisions" and len(names) > 1:
        decision = document["decisions"][names[1]]
        explanation["rule"] = names[1]
        explanation["score"] = decision["score_id"]
        if "cause" in decision:
            cause = decision["cause"]
            explanation["models"] = {cause["model"]: cause["version"]}
        if "command" in decision:
            explanation["command"] = decision["command"]

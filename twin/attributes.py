"""Attributes: what a vehicle is (fleet, model, firmware, vin, ..), as text by name.

The car says its own with each birth, over what is known; the API replaces all of them. Whoever spoke
last is right. Their number, names and texts are limited, and the document that holds them is.
"""

from collections.abc import Mapping

from twin import causes
from twin.effects import Refusal
from twin.state import Limits
from twin.step import Step
from twin.wire.errors import Invalid, TooLarge
from twin.wire.records import Request


def read(request: Request, limits: Limits) -> dict[str, str]:
    """The attributes that a request wants set. Raises `Refusal`."""
    value = request["body"].get("value")
    if not isinstance(value, dict):
        raise Refusal(
            400, "bad_request", f"attributes is {type(value).__name__}; a JSON object is accepted"
        )
    if len(value) > limits.attributes:
        raise Refusal(
            413,
            "document_too_large",
            f"{len(value)} attributes; at most {limits.attributes} are accepted",
        )
    for name, text in value.items():
        if not isinstance(text, str) or len(text.encode()) > limits.attribute_bytes:
            raise Refusal(
                400,
                "bad_request",
                f"attribute {name[:40]!r} is {str(text)[:40]!r}; text of at most"
                f" {limits.attribute_bytes} bytes is accepted",
            )
        if len(name.encode()) > limits.key_bytes:
            raise Refusal(
                400,
                "key_too_long",
                f"attribute {name[:40]!r}.. has a name of {len(name.encode())} bytes;"
                f" at most {limits.key_bytes} are accepted",
            )
    return value


def replace(step: Step, attributes: Mapping[str, str], by: str) -> None:
    """Set all attributes; those not named are gone. Raises `Refusal` and changes nothing."""
    if step.twin["attributes"] != attributes:
        _set(step, dict(attributes), attributes)
        step.change("attributes", {"attributes": dict(attributes), "op": "put", "by": by})


def merge(step: Step, attributes: Mapping[str, str]) -> None:
    """What the car says of itself, over what is known; too many are told on `rejected`."""
    before = step.twin["attributes"]
    new = {name: text for name, text in attributes.items() if before.get(name) != text}
    if not new:
        return
    merged, limits = {**before, **new}, step.context.limits
    fault = None
    if len(merged) > limits.attributes:
        fault = f"would make {len(merged)} of the twin; at most {limits.attributes} are accepted"
    elif any(len(name.encode()) > limits.key_bytes for name in new):
        fault = f"have a name of more than {limits.key_bytes} bytes, the most accepted"
    elif any(len(text.encode()) > limits.attribute_bytes for text in new.values()):
        fault = f"have a text of more than {limits.attribute_bytes} bytes, the most accepted"
    if fault is not None:
        step.effects.rejected = Invalid(
            f"attributes {', '.join(new)[:100]} {fault} (the status itself was applied)",
            reason="limit_reached",
        )
        return
    try:
        _set(step, merged, new)
    except Refusal as refusal:
        step.effects.rejected = TooLarge(f"{refusal.detail} (the status itself was applied)")
        return
    step.change("attributes", {"attributes": new, "op": "merge", "by": "car"})


def _set(step: Step, after: dict[str, str], said: Mapping[str, str]) -> None:
    because = causes.named(step.twin.get("causes", {}), ("attributes",), said, after, step.place)
    step.fit({"attributes": after, "causes": because})
    step.twin["attributes"], step.twin["causes"] = after, because

"""What a request for a command asks, checked: id, name, arguments, lane, time to live.

The API checks most of it before; the owner checks again because the topic is open to others.
"""

from typing import TypeGuard

from twin.effects import Refusal
from twin.patch import check_shape
from twin.policy import COMMAND_NAME
from twin.step import Order, Step
from twin.wire.codec import dump
from twin.wire.errors import Misaddressed
from twin.wire.ids import vehicle_of
from twin.wire.records import FREE_LANE, Request


def read_order(step: Step, request: Request) -> Order:
    """The command that is asked for. Raises `Refusal`."""
    body, limits = request["body"], step.context.limits
    command_id, name, lane = body.get("id"), body.get("name"), body.get("lane", FREE_LANE)
    args, ttl_s = body.get("args", {}), body.get("ttl_s", limits.ttl_default_ms / 1000)
    if not isinstance(command_id, str) or not is_ours(command_id, step.vehicle_id):
        raise Refusal(
            400,
            "bad_command",
            f"command id {str(command_id)[:100]!r} is not one of {step.vehicle_id}",
        )
    for field, value in (("name", name), ("lane", lane)):
        if not isinstance(value, str) or not COMMAND_NAME.fullmatch(value):
            raise Refusal(
                400,
                "bad_command",
                f"{field} is {str(value)[:60]!r}; a-z 0-9 . _ - beginning with a letter,"
                " at most 64 long, is accepted",
            )
    assert isinstance(name, str)
    if not isinstance(args, dict):
        raise Refusal(
            400, "bad_command", f"args is {type(args).__name__}; a JSON object is accepted"
        )
    check_shape(args, "args", limits)
    length = len(dump(args))
    if length > limits.command_bytes:
        raise Refusal(
            413,
            "document_too_large",
            f"args of {length} bytes; at most {limits.command_bytes} are accepted",
        )
    if type(ttl_s) not in (int, float) or not 0 < ttl_s <= limits.ttl_max_ms / 1000:
        raise Refusal(
            400,
            "bad_ttl",
            f"ttl_s is {str(ttl_s)[:40]!r}; more than 0 to {limits.ttl_max_ms // 1000} s is accepted",
        )
    return Order(
        id=command_id,
        name=name,
        args=args,
        lane=lane,
        ttl_ms=max(1, int(ttl_s * 1000)),
        by=request["by"],
        idempotency_key=request.get("idempotency_key"),
        body_hash=request.get("body_hash"),
    )


def is_ours(command_id: object, vehicle_id: str) -> TypeGuard[str]:
    """Whether it is a command id of this vehicle, known or not."""
    try:
        return isinstance(command_id, str) and vehicle_of(command_id) == vehicle_id
    except Misaddressed:
        return False

"""One telemetry message: what a car said, checked, in the form every process computes with.

JSON object -> `from_fields` -> Telemetry; Kafka record -> `codec.decode_sample` -> Sample, the same
in columns, for where every message counts. The uplink judges once (identity, clock, type, range) and
everyone behind it trusts the record. A signal that a car does not have is absent, never 0.

Validation modes: `off` (types only), `warn` (kept, impossible values marked `suspect`, such rows are
not scored), `enforce` (the default: one impossible value rejects the message).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from twin.native.telemetry import Sample, shared_names
from twin.wire.catalogue import BY_NAME, Signal
from twin.wire.errors import Invalid, Misaddressed, Reason

__all__ = ["CLOCK_AHEAD_MS", "Sample", "Telemetry", "Validation", "from_fields", "shared_names"]

Validation = Literal["off", "warn", "enforce"]

CLOCK_AHEAD_MS: Final = 300_000
"""An event_time further ahead of its arrival than this is a wrong clock (design law 1)."""

_FLOAT32_MAX: Final = 3.4028234663852886e38
_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1
_HEADER = frozenset({"vehicle_id", "event_time", "session", "sequence", "traceparent", "held_from"})


@dataclass(slots=True)
class Telemetry:
    """One message of one car. Times in ms since 1970; `signals` holds present values only.

    `assigned` says that the bridge had to make up event_time or sequence; `suspect` names signals
    whose value is impossible (mode `warn`).
    """

    vehicle_id: str
    event_time: int
    session: int
    sequence: int
    signals: dict[str, float] = field(default_factory=dict)
    assigned: bool = False
    suspect: tuple[str, ...] = ()


def from_fields(
    fields: Mapping[str, Any],
    *,
    vehicle_id: str,
    ingested_at: int,
    counter: int,
    mode: Validation = "enforce",
) -> Telemetry:
    """Check a decoded message against topic, clock and catalogue.

    `ingested_at` is the arrival in ms; `counter` becomes the sequence where the car sent none.
    Raises `Misaddressed` or `Invalid` with a reason code.
    """
    claimed = fields.get("vehicle_id")
    if claimed is not None and claimed != vehicle_id:
        raise Misaddressed(
            f"vehicle_id {str(claimed)[:80]!r} in the payload is not {vehicle_id!r} of the topic"
        )
    event_time = _integer(fields, "event_time")
    sequence = _integer(fields, "sequence")
    assigned = event_time is None or sequence is None
    if event_time is None:
        event_time = ingested_at
    elif event_time > ingested_at + CLOCK_AHEAD_MS:
        raise Invalid(
            f"event_time {event_time} is {(event_time - ingested_at) // 1000} s ahead of its arrival;"
            f" at most {CLOCK_AHEAD_MS // 1000} s is accepted",
            reason="clock_ahead",
        )
    signals, suspect = _signals(fields, mode)
    return Telemetry(
        vehicle_id=vehicle_id,
        event_time=event_time,
        session=_integer(fields, "session") or 0,
        sequence=counter if sequence is None else sequence,
        signals=signals,
        assigned=assigned,
        suspect=suspect,
    )


def _signals(
    fields: Mapping[str, Any], mode: Validation
) -> tuple[dict[str, float], tuple[str, ...]]:
    signals: dict[str, float] = {}
    suspect: list[str] = []
    for name, value in fields.items():
        if name in _HEADER or value is None:
            continue
        fault = _fault(name, value, mode)
        if fault is None:
            signals[name] = _typed(name, value)
            continue
        reason, detail = fault
        if mode != "warn" and not (mode == "off" and reason == "unknown_signal"):
            raise Invalid(detail, reason=reason)
        suspect.append(name[:64])
        if reason == "out_of_range":
            signals[name] = _typed(name, value)
    if not signals:
        raise Invalid(
            f"no signal of the catalogue in the message (fields: {', '.join(map(str, fields))[:200]})",
            reason="empty",
        )
    return signals, tuple(suspect)


def _typed(name: str, value: float) -> float:
    """32.0 of an integer signal as 32: JSON does not tell them apart, Avro does."""
    return int(value) if type(value) is float and BY_NAME[name].type == "int" else value


def _fault(name: str, value: object, mode: Validation) -> tuple[Reason, str] | None:
    signal = BY_NAME.get(name)
    if signal is None:
        return "unknown_signal", f"signal {name[:64]!r} is not in the catalogue"
    if not _representable(signal, value):
        kind = "a 32-bit integer" if signal.type == "int" else "a finite 32-bit number"
        return "bad_type", f"{name} is {str(value)[:40]!r}; {kind} in {signal.unit} is accepted"
    if mode != "off" and not signal.low <= value <= signal.high:  # type: ignore[operator]
        return (
            "out_of_range",
            f"{name} is {value}; {signal.low:g} to {signal.high:g} {signal.unit} is possible",
        )
    return None


def _representable(signal: Signal, value: object) -> bool:
    if type(value) is int:
        return abs(value) <= (_INT32_MAX if signal.type == "int" else _FLOAT32_MAX)
    if type(value) is not float or not math.isfinite(value) or abs(value) > _FLOAT32_MAX:
        return False
    return signal.type == "float" or (value.is_integer() and abs(value) <= _INT32_MAX)


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= _INT64_MAX:
        return value
    raise Invalid(f"{name} is {str(value)[:40]!r}; an integer from 0 to 2^63-1 is accepted")

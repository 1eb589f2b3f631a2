"""The decision policy: which state of health asks for which command, and what must hold for it.

A policy is a TOML file, read once at start and checked whole: a wrong one stops the process with the
rule, the field, its value and what is accepted. `twin/policy.toml` is the default and the example.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, cast

from twin.effects import Refusal
from twin.patch import check_shape
from twin.state import Limits
from twin.wire import codec
from twin.wire.catalogue import BY_NAME
from twin.wire.errors import CartwinError
from twin.wire.records import FREE_LANE

COMMAND_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
MAX_RULES: Final = 32
MAX_RATE: Final = 100_000


class PolicyError(CartwinError):
    """The policy file cannot be used."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A signal that must be reported, trusted, not older than `max_age_ms`, and within its bounds."""

    signal: str
    max_age_ms: int
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Health in state `health` asks for `command`, if every interlock agrees. Times in ms."""

    name: str
    health: Literal["warning", "alarm"]
    command: str
    args: Mapping[str, Any]
    lane: str
    ttl_ms: int
    cool_down_ms: int
    require: tuple[Requirement, ...] = ()
    max_per_fleet_per_minute: int | None = None
    """At most so many commands of this rule for the cars of one fleet; see `decide`."""
    approval: bool = False
    """Somebody must agree before the command is given."""
    approval_ttl_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules; `enabled` is the kill switch."""

    rules: tuple[Rule, ...] = ()
    enabled: bool = True


_Check = tuple[Callable[[Any], bool], str]


def _number(value: object) -> bool:
    """Finite, and an integer of at most 64 bits: what JSON carries between all parts."""
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and math.isfinite(value)


def _seconds(low: int, high: int) -> _Check:
    return lambda v: _number(v) and low <= v <= high, f"a number of seconds from {low} to {high}"


_NAME: Final[_Check] = (
    lambda v: isinstance(v, str) and COMMAND_NAME.fullmatch(v) is not None,
    "a name of a-z 0-9 . _ - beginning with a letter, at most 64 long",
)
_BOUND: Final[_Check] = (_number, "a number in the signal's unit")
_FILE: Final[dict[str, _Check]] = {
    "enabled": (lambda v: isinstance(v, bool), "true or false"),
    "rule": (
        lambda v: (
            isinstance(v, list) and len(v) <= MAX_RULES and all(isinstance(r, dict) for r in v)
        ),
        f"up to {MAX_RULES} tables [[rule]]",
    ),
}
_RULE: Final[dict[str, _Check]] = {
    "name": _NAME,
    "health": (lambda v: v in ("warning", "alarm"), "'warning' or 'alarm'"),
    "command": _NAME,
    "args": (lambda v: isinstance(v, dict), "a table of the command's arguments"),
    "lane": _NAME,
    "ttl_s": _seconds(1, 604_800),
    "cool_down_s": _seconds(0, 604_800),
    "max_per_fleet_per_minute": (
        lambda v: type(v) is int and 1 <= v <= MAX_RATE,
        f"an integer from 1 to {MAX_RATE}",
    ),
    "approval": (lambda v: isinstance(v, bool), "true or false"),
    "approval_ttl_s": _seconds(1, 604_800),
    "require": (
        lambda v: isinstance(v, list) and all(isinstance(r, dict) for r in v),
        "tables [[rule.require]]",
    ),
}
_REQUIRE: Final[dict[str, _Check]] = {
    "signal": (
        lambda v: isinstance(v, str) and v in BY_NAME,
        "a signal of the catalogue (cartwin's list: coolant_temp, speed, ..)",
    ),
    "max_age_s": _seconds(1, 86_400),
    "at_least": _BOUND,
    "at_most": _BOUND,
}


def load_policy(path: Path | None, limits: Limits | None = None) -> Policy:
    """The policy of a file; None is the default. Raises `PolicyError` in one sentence.

    `limits`: those that the commands of people have, too; None = the usual ones.
    """
    if path is None:
        text = (files("twin") / "policy.toml").read_text("utf-8")
        return parse_policy(text, "policy.toml", limits)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"policy file {path} cannot be read: {error}") from error
    return parse_policy(text, str(path), limits)


def parse_policy(text: str, source: str, limits: Limits | None = None) -> Policy:
    """The policy that `text` (TOML) says. Raises `PolicyError` naming `source`, rule and field."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"policy {source} is not TOML: {error}") from error
    _check(document, _FILE, f"policy {source}", required=())
    limits = limits or Limits()
    rules = tuple(
        _rule(fields, source, n, limits) for n, fields in enumerate(document.get("rule", []), 1)
    )
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise PolicyError(
                f"policy {source}: two rules have the name {name!r}; each needs its own"
            )
    return Policy(rules, document.get("enabled", True))


def _rule(fields: dict[str, Any], source: str, number: int, limits: Limits) -> Rule:
    where = f"policy {source}, rule {fields.get('name', number)!r}"
    _check(fields, _RULE, where, required=("name", "health", "command", "ttl_s", "cool_down_s"))
    args = _arguments(fields.get("args", {}), where, limits)
    if fields["ttl_s"] * 1000 > limits.ttl_max_ms:
        most = limits.ttl_max_ms // 1000
        raise PolicyError(f"{where}: field ttl_s is {fields['ttl_s']}; at most {most} is accepted")
    approval = fields.get("approval", False)
    if "approval_ttl_s" in fields and not approval:
        raise PolicyError(f"{where}: approval_ttl_s is accepted together with approval = true only")
    return Rule(
        name=fields["name"],
        health=cast(Literal["warning", "alarm"], fields["health"]),
        command=fields["command"],
        args=args,
        lane=fields.get("lane", FREE_LANE),
        ttl_ms=int(fields["ttl_s"] * 1000),
        cool_down_ms=int(fields["cool_down_s"] * 1000),
        require=tuple(
            _requirement(inner, f"{where}, require {n}")
            for n, inner in enumerate(fields.get("require", []), 1)
        ),
        max_per_fleet_per_minute=fields.get("max_per_fleet_per_minute"),
        approval=approval,
        approval_ttl_ms=int(fields.get("approval_ttl_s", 3600) * 1000),
    )


def _arguments(args: dict[str, Any], where: str, limits: Limits) -> dict[str, Any]:
    try:
        check_shape(args, "args", limits)
    except Refusal as refusal:
        raise PolicyError(f"{where}: {refusal.detail}") from refusal
    if not _is_json(args):
        raise PolicyError(
            f"{where}: field args holds a date, time or infinite number; JSON values are accepted"
        )
    length = len(codec.dump(args))
    if length > limits.command_bytes:
        raise PolicyError(
            f"{where}: field args is {length} bytes long; at most {limits.command_bytes} are accepted"
        )
    return args


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_json(inner) for inner in value.values())
    if isinstance(value, list):
        return all(_is_json(inner) for inner in value)
    return isinstance(value, str | bool) or _number(value)


def _requirement(fields: dict[str, Any], where: str) -> Requirement:
    _check(fields, _REQUIRE, where, required=("signal", "max_age_s"))
    low, high = fields.get("at_least"), fields.get("at_most")
    if low is not None and high is not None and low > high:
        raise PolicyError(f"{where}: at_least {low} is above at_most {high}")
    return Requirement(fields["signal"], int(fields["max_age_s"] * 1000), low, high)


def _check(
    fields: dict[str, Any], accepted: dict[str, _Check], where: str, required: tuple[str, ...]
) -> None:
    for name, value in fields.items():
        if name not in accepted:
            raise PolicyError(
                f"{where}: field {name[:60]!r} is not known; accepted are {', '.join(accepted)}"
            )
        holds, words = accepted[name]
        if not holds(value):
            raise PolicyError(f"{where}: field {name} is {str(value)[:60]!r}; {words} is accepted")
    for name in required:
        if name not in fields:
            raise PolicyError(f"{where}: field {name} is missing; {accepted[name][1]} is accepted")

"""`filter=health eq alarm and coolant_temp gt 110`: conditions on indexed fields. Pure.

    filter = condition *(" and " condition);  condition = field op value
    op     = eq | ne | gt | ge | lt | le;     value = a word, or "text in quotes" (JSON escapes)

Only indexed fields can be asked for, so that a list never has to look at all twins. A number that a
car does not have fulfils no condition but `ne`. What a condition says is judged by the document; its
selector is what the index can say to it, and never leaves out a twin that fulfils it.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import orjson

from twin.api.problems import Problem
from twin.api.selectors import Between, Having, Selector
from twin.wire.keys import COUNTED, LAG, NUMBERS, OPEN_COMMANDS
from twin.wire.records import HealthState, PresenceState

MAX_CHARS: Final = 1000
FIELDS: Final = (*COUNTED, *NUMBERS)

_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "presence": get_args(PresenceState),
    "health": get_args(HealthState),
}
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_TOKEN: Final = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([^\s"]+))(?=\s|$)')


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; `value` is a number where the field is one, text otherwise."""

    field: str
    op: str
    value: str | float

    def holds(self, index: Mapping[str, Any]) -> bool:
        """Whether the indexed values of a twin fulfil it."""
        actual = index.get(self.field)
        if actual is None:
            return self.op == "ne"
        wanted = self.value
        if isinstance(wanted, str):
            # Firmware "900" is older than "2000": text that is a number on both sides is compared
            # as one, other text by code points.
            actual = str(actual)
            numbers = (_number(actual), _number(wanted))
            if self.op not in ("eq", "ne") and None not in numbers:
                return _OPERATORS[self.op](*numbers)
        return _OPERATORS[self.op](actual, wanted)

    def selector(self) -> Selector | None:
        """What the index can say to it; None when that would not be all of them."""
        wanted = self.value
        if isinstance(wanted, str):
            return Having(self.field, wanted) if self.op == "eq" else None
        none_open = self.field == OPEN_COMMANDS and self.holds({OPEN_COMMANDS: 0})
        if self.op == "ne" or none_open:
            return None
        lag = LAG[self.field]
        low = wanted - lag if self.op in ("eq", "gt", "ge") else -math.inf
        high = wanted + lag if self.op in ("eq", "lt", "le") else math.inf
        return Between(self.field, low, high)


def parse(text: str) -> tuple[Condition, ...]:
    """Read the parameter; raises `Problem` invalid_filter naming what is accepted."""
    if len(text) > MAX_CHARS:
        raise _refused(f"filter of {len(text)} characters; at most {MAX_CHARS} are accepted")
    words = _tokens(text)
    conditions = []
    for start in range(0, len(words), 4):
        group = words[start : start + 4]
        last = start + 4 >= len(words)
        if len(group) < 3 or (last and len(group) == 4) or (not last and group[3] != "and"):
            raise _refused(
                f"filter {text[:200]!r} is not accepted: conditions <field> <op> <value> joined by"
                " ' and ', like health eq alarm and coolant_temp gt 110"
            )
        conditions.append(_condition(*group[:3]))
    if not conditions:
        raise _refused("filter is empty; leave it out or give a condition like health eq alarm")
    return tuple(conditions)


def _condition(field: str, op: str, value: str) -> Condition:
    if field not in FIELDS:
        raise _refused(f"{field[:80]!r} cannot be filtered by; indexed fields: {', '.join(FIELDS)}")
    words = _WORDS.get(field)
    accepted = ("eq", "ne") if words else tuple(_OPERATORS)
    if op not in accepted:
        raise _refused(f"{field} {op[:20]!r}: operators accepted here: {', '.join(accepted)}")
    quoted = value.startswith('"')
    try:
        text: str = orjson.loads(value) if quoted else value
    except orjson.JSONDecodeError as error:
        raise _refused(f"{value[:80]} is no text in quotes with JSON escapes") from error
    if words and text not in words:
        raise _refused(f"{field} is never {text[:80]!r}; values: {', '.join(words)}")
    if field in NUMBERS:
        number = None if quoted else _number(text)
        if number is None:
            raise _refused(f"{field} is compared with {value[:80]!r}; a number is accepted")
        return Condition(field, op, number)
    return Condition(field, op, text)


def _tokens(text: str) -> list[str]:
    words, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = len(text) - len(text[at:].lstrip()) + 1
            raise _refused(f"filter {text[:200]!r} cannot be read from character {start} on")
        words.append(match[1] or match[2])
        at = match.end()
    return words


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # Python alone reads "1_0" as ten.
    return number if math.isfinite(number) and "_" not in text else None


def _refused(detail: str) -> Problem:
    return Problem("invalid_filter", detail)

"""Algebra of JSON documents: what differs, as a merge patch, and how deep and wide it may be.

Pure functions over plain JSON values. None changes its arguments; results share the parts of them
that stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from twin.effects import Refusal
from twin.state import Limits


def difference(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> dict[str, Any]:
    """Members of `wanted` that are missing in or differ from `actual`; objects are compared inside.

    It is a merge patch: `merge_patch(actual, difference(wanted, actual))` has no difference left.
    """
    delta: dict[str, Any] = {}
    for name, value in wanted.items():
        if name not in actual:
            delta[name] = value
        elif isinstance(value, dict) and isinstance(actual[name], dict):
            inner = difference(value, actual[name])
            if inner:
                delta[name] = inner
        elif not equal(value, actual[name]):
            delta[name] = value
    return delta


def equal(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, but true is not 1 (in Python it is)."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


def check_shape(value: Mapping[str, Any], what: str, limits: Limits) -> None:
    """Raise `Refusal` too_deep or key_too_long; the object itself is level 1. Never recurses."""
    level: list[Any] = [value]
    for _ in range(limits.depth):
        for name in _names(level):
            if len(name.encode()) > limits.key_bytes:
                raise Refusal(
                    400,
                    "key_too_long",
                    f"{what} has the key {name[:40]!r}.. of {len(name.encode())} bytes;"
                    f" at most {limits.key_bytes} are accepted",
                )
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise Refusal(
        400, "too_deep", f"{what} is nested deeper than {limits.depth} levels, the most accepted"
    )


def _names(nodes: list[Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, dict):
            yield from node

"""Merge patches (RFC 7396): how a change of a JSON document is said. Pure."""

from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied: null removes a member, anything but an object replaces.

    Neither is changed; the result shares the parts that stay as they are.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result

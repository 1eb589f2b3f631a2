"""`fields=reported.coolant_temp,health`: which parts of a document are wanted. Pure.

A path names members from the root, joined by dots; a path that a document does not have is simply
absent from the answer, since cars differ in what they report.
"""

from typing import Any, Final

from twin.api.problems import Problem

MAX_PATHS: Final = 100
_MAX_SEGMENTS: Final = 9
"""A twin document is at most 8 levels deep below its root member."""

Wanted = dict[str, Any]
"""A tree of member names; an empty dict means the whole member."""


def parse(text: str) -> Wanted:
    """Read the parameter; raises `Problem` invalid_fields."""
    paths = text.split(",")
    if len(paths) > MAX_PATHS:
        raise Problem(
            "invalid_fields", f"fields names {len(paths)} paths; at most {MAX_PATHS} are accepted"
        )
    wanted: Wanted = {}
    for path in paths:
        segments = path.strip().split(".")
        if not all(segments) or len(segments) > _MAX_SEGMENTS:
            raise Problem(
                "invalid_fields",
                f"path {path[:80]!r} in fields is not accepted: member names joined by dots, like"
                f" reported.coolant_temp, at most {_MAX_SEGMENTS} of them",
            )
        _add(wanted, segments)
    return wanted


def project(document: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The wanted parts of `document`, nested as they are there."""
    chosen: dict[str, Any] = {}
    for name, below in wanted.items():
        if name not in document:
            continue
        value = document[name]
        if not below:
            chosen[name] = value
        elif isinstance(value, dict):
            part = project(value, below)
            if part:
                chosen[name] = part
    return chosen


def _add(wanted: Wanted, segments: list[str]) -> None:
    node = wanted
    for depth, name in enumerate(segments):
        if name in node and not node[name]:
            return  # a shorter path already asks for all of it
        if depth == len(segments) - 1:
            node[name] = {}
        else:
            node = node.setdefault(name, {})

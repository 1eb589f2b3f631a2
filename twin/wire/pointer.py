"""Paths into a JSON document: RFC 6901 pointers, and the dotted form that people write.

    /reported/coolant_temp = reported.coolant_temp

A member's name may hold dots itself; then the dotted form is read with the shortest names that lead to
something, and a pointer says it exactly.
"""

from collections.abc import Mapping
from typing import Any, Final

from twin.wire.errors import CartwinError

MAX_CHARS: Final = 2048
NAMED: Final = 40
"""Members named in an error."""


class PathNotFound(CartwinError):
    """There is nothing at the path; the message says how far it leads and what is there."""


def pointer(*names: str) -> str:
    """The RFC 6901 pointer to a member."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)


def resolve(document: Mapping[str, Any], path: str) -> tuple[tuple[str, ...], Any]:
    """Member names from the root to what `path` names, and its value; "" is the whole document.

    Of an array the members are named by their index. Raises `PathNotFound`.
    """
    if not path:
        return (), document
    if len(path) > MAX_CHARS:
        raise PathNotFound(f"a path of {len(path)} characters; at most {MAX_CHARS} are accepted")
    if path.startswith("/"):
        names = tuple(n.replace("~1", "/").replace("~0", "~") for n in path[1:].split("/"))
        value: Any = document
        for depth, name in enumerate(names):
            members = _members(value)
            if name not in members:
                raise _nothing(names[:depth], name, members)
            value = members[name]
        return names, value
    return _dotted(document, path)


def _dotted(document: Mapping[str, Any], path: str) -> tuple[tuple[str, ...], Any]:
    furthest: tuple[str, ...] = ()
    left, there = path, _members(document)
    # A way is the names taken, what is left of the path (None: all is taken), and what is there. Each
    # leads to another place of the document, so there are no more of them than places.
    ways: list[tuple[tuple[str, ...], str | None, Any]] = [((), path, document)]
    while ways:
        names, rest, value = ways.pop()
        if rest is None:
            return names, value
        members = _members(value)
        if len(names) > len(furthest):
            furthest, left, there = names, rest, members
        for name in _beginning(rest, members):
            more = None if name == rest else rest[len(name) + 1 :]
            ways.append(((*names, name), more, members[name]))
    raise _nothing(furthest, left, there)


def _beginning(rest: str, members: Mapping[str, Any]) -> list[str]:
    """Members that `rest` may begin with; the shortest last."""
    ends = [place for place, char in enumerate(rest) if char == "."] + [len(rest)]
    return [rest[:end] for end in reversed(ends) if rest[:end] in members]


def _members(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {str(n): item for n, item in enumerate(value)} if isinstance(value, list) else {}


def _nothing(names: tuple[str, ...], missing: str, members: Mapping[str, Any]) -> PathNotFound:
    where = ".".join(names)[:200] or "the twin"
    known = sorted(members)
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    there = ", ".join(name[:60] for name in known[:NAMED]) + more if known else "nothing below it"
    return PathNotFound(f"{where} has no {missing[:80]!r}; it has {there}")

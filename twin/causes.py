"""Which record is behind each part of a twin: the map `causes`, JSON pointer -> "topic/offset".

The cause of a value is the entry of the longest pointer that leads to it, so one entry stands for all
that one record said: the attributes of a birth are `/attributes`, and what another record changes of
them gets an entry of its own. Plain telemetry writes nothing here, since each signal has its offset
(`o`). The partition is that of the vehicle, the same on every topic. Read by `wire.explain`.

The map is as small as what it explains: an entry goes with the member it is about, and all of a part's
entries go when one record says the whole part anew. It counts for the limit of the document.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from twin.wire.pointer import pointer
from twin.wire.records import Position

Causes = dict[str, str]


def place(position: Position) -> str:
    """A position as it stands in `causes`."""
    return f"{position['topic']}/{position['offset']}"


def whole(causes: Mapping[str, str], paths: Iterable[str], cause: str) -> Causes:
    """The map when a record set the parts at `paths` (pointers) with all that is in them."""
    paths = tuple(paths)
    return {**_without(causes, paths), **dict.fromkeys(paths, cause)}


def merged(
    causes: Mapping[str, str],
    part: tuple[str, ...],
    patch: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    cause: str,
) -> Causes:
    """The map when the merge patch `patch` (RFC 7396) made `after` of `before`, the members of `part`."""
    root = pointer(*part)
    said = list(_said(part, patch, before))
    paths = {path for path, _ in said}
    if all(pointer(*part, name) in paths for name in after):
        return {**_without(causes, [root]), root: cause}
    kept = _without(causes, paths)
    # The whole part may come from this record already (it speaks of one member twice: value, state).
    if kept.get(root) != cause:
        kept.update({path: cause for path, there in said if there})
    return kept


def named(
    causes: Mapping[str, str],
    part: tuple[str, ...],
    names: Iterable[str],
    after: Mapping[str, Any],
    cause: str,
) -> Causes:
    """The map when a record set the members `names` of `part` whole, and `after` is what there is."""
    root = pointer(*part)
    new = set(names) & after.keys()
    if new == after.keys():
        return {**_without(causes, [root]), root: cause}
    there = {pointer(*part, name) for name in after.keys() - new}
    kept = {
        path: known
        for path, known in causes.items()
        if not path.startswith(root + "/") or path in there
    }
    return {**kept, **{pointer(*part, name): cause for name in sorted(new)}}


def _said(
    part: tuple[str, ...], patch: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterable[tuple[str, bool]]:
    """Pointers of what a patch sets (True) or removes (False) as a whole."""
    for name, value in patch.items():
        known = before.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            yield from _said((*part, name), value, known)
        else:
            yield pointer(*part, name), value is not None


def _without(causes: Mapping[str, str], paths: Iterable[str]) -> Causes:
    """The map without the entries at and below `paths`."""
    gone = tuple(paths)
    below = tuple(path + "/" for path in gone)
    return {
        path: cause
        for path, cause in causes.items()
        if path not in gone and not path.startswith(below)
    }

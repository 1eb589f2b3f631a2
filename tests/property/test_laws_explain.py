"""Explain over random logs: every leaf of every document has a record, and it was applied."""

from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given

from tests.twin_builders import World
from tests.twin_logs import CONTEXT, LOGS, do
from twin.document import dump
from twin.wire.explain import explain
from twin.wire.pointer import pointer


def paths(value: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place of a document: its objects, arrays and leaves."""
    yield names
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in members:
            yield from paths(inner, (*names, str(name)))


@given(LOGS)
def test_every_place_is_explained_by_a_record_that_was_applied(log):
    """Of the vehicle's partition, at or before the last one that `applied` names for its topic."""
    world = World(CONTEXT)
    for step in log:
        do(world, step)
    if world.state is None:
        return
    document = orjson.loads(dump(world.twin))
    fed = {(p["topic"], p["partition"], p["offset"]) for _, _, p, _ in world.log}
    for names in paths(document):
        found = explain(document, pointer(*names))
        record = found["record"]
        assert record is not None, names
        for one in [record, *found.get("also", [])]:
            assert (one["topic"], one["partition"], one["offset"]) in fed
            assert document["applied"][one["topic"]][1] >= one["offset"]
        assert found["how"]


@given(LOGS)
def test_the_record_behind_a_value_is_the_one_that_changed_it(log):
    """A member that was not there or had another value before a record is explained by that record."""
    world = World(CONTEXT)
    before: dict[tuple[str, ...], Any] = {}
    for step in log:
        count = len(world.log)
        effects = do(world, step)
        if effects is None or world.state is None:
            before = {} if world.state is None else before
            continue
        document = orjson.loads(dump(world.twin))
        after = {names: value for names, value in members(document) if names[0] not in UNTOLD}
        for names, value in after.items():
            if before.get(names, _ABSENT) != value:
                record = explain(document, pointer(*names))["record"]
                assert record == world.log[count][2], (names, step)
        before = after


_ABSENT = object()
UNTOLD = ("causes", "delta", "counts", "epoch")
"""What is computed, or counted without a revision, changes with other records than those it names."""


def members(value: dict[str, Any], names: tuple[str, ...] = ()) -> Iterator[Any]:
    """All that are no objects; an array is one value."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from members(inner, (*names, name))
        else:
            yield (*names, name), inner

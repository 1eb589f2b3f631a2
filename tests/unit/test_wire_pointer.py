"""Paths into a document: pointers, the dotted form, and what an unknown path is told."""

import pytest

from twin.wire.pointer import MAX_CHARS, PathNotFound, pointer, resolve

DOCUMENT = {
    "reported": {"speed": {"v": 1.5}},
    "config": {"a.b": 1, "a": {"b": 2, "c": {"d.e": 3}}, "": 4, "x/y~z": 5},
    "list": [{"n": 1}, {"n": 2}],
}


@pytest.mark.parametrize(
    ("path", "names", "value"),
    [
        ("", (), DOCUMENT),
        ("reported.speed.v", ("reported", "speed", "v"), 1.5),
        ("/reported/speed/v", ("reported", "speed", "v"), 1.5),
        ("config.a.b", ("config", "a", "b"), 2),
        ("/config/a.b", ("config", "a.b"), 1),
        ("config.a.c.d.e", ("config", "a", "c", "d.e"), 3),
        ("config.", ("config", ""), 4),
        ("/config/", ("config", ""), 4),
        ("config.x/y~z", ("config", "x/y~z"), 5),
        ("/config/x~1y~0z", ("config", "x/y~z"), 5),
        ("list.1.n", ("list", "1", "n"), 2),
    ],
)
def test_a_path_leads_to_a_value(path, names, value):
    """Dotted or as a pointer; dots within names are found, pointers say them exactly."""
    assert resolve(DOCUMENT, path) == (names, value)
    assert resolve(DOCUMENT, pointer(*names)) == (names, value)


def test_a_dotted_name_is_found_behind_a_shorter_one_that_leads_nowhere():
    """`a` has no `b`, but there is `a.b`."""
    assert resolve({"a": {"x": 1}, "a.b": 2}, "a.b") == (("a.b",), 2)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("speed", ["the twin has no 'speed'", "config, list, reported"]),
        ("reported.coolant", ["reported has no 'coolant'", "it has speed"]),
        ("reported.speed.w.x", ["reported.speed has no 'w.x'", "it has v"]),
        ("/reported/speed/v/w", ["reported.speed.v has no 'w'", "nothing below it"]),
        ("list.7", ["list has no '7'", "0, 1"]),
        ("/list/-1", ["list has no '-1'"]),
        ("x" * (MAX_CHARS + 1), [str(MAX_CHARS)]),
    ],
)
def test_an_unknown_path_is_told_what_there_is(path, words):
    """How far it leads, and the members there."""
    with pytest.raises(PathNotFound) as fault:
        resolve(DOCUMENT, path)
    assert [word for word in words if word not in str(fault.value)] == []


def test_only_some_of_many_members_are_named():
    """The sentence stays short."""
    with pytest.raises(PathNotFound, match="and 60 more"):
        resolve({f"m{n:03}": n for n in range(100)}, "x")

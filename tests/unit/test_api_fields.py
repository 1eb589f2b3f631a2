"""The `fields` parameter: which parts of a document are answered."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.api import fields
from twin.api.problems import Problem

DOCUMENT = {
    "vehicle_id": "car-1",
    "reported": {"speed": {"v": 3.0, "t": 1}, "coolant_temp": {"v": 90.0, "t": 2}},
    "health": {"state": "normal", "models": {}},
    "delta": {},
    "list": [1, 2],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vehicle_id", {"vehicle_id": "car-1"}),
        (
            "reported.speed,health.state",
            {"reported": {"speed": {"v": 3.0, "t": 1}}, "health": {"state": "normal"}},
        ),
        ("reported.speed.v", {"reported": {"speed": {"v": 3.0}}}),
        ("reported,reported.speed.v", {"reported": DOCUMENT["reported"]}),
        ("reported.speed.v,reported", {"reported": DOCUMENT["reported"]}),
        ("delta,list", {"delta": {}, "list": [1, 2]}),
        (" health.state ", {"health": {"state": "normal"}}),
        ("nothing,reported.nothing,vehicle_id.x,list.0", {}),
    ],
)
def test_projection(text: str, expected: dict[str, Any]) -> None:
    """Wanted members come nested as they are; a path that is not there is absent."""
    assert fields.project(DOCUMENT, fields.parse(text)) == expected


@pytest.mark.parametrize("text", ["", "a,,b", ".a", "a.", "a..b", ".".join("abcdefghij"), ","])
def test_malformed_path_is_refused(text: str) -> None:
    """An empty name or too long a path is refused with an example of what is accepted."""
    with pytest.raises(Problem, match=r"reported\.coolant_temp") as refused:
        fields.parse(text)
    assert refused.value.code == "invalid_fields"


def test_a_hundred_paths_are_accepted_and_no_more() -> None:
    """The limit of 100 paths is named when it is passed."""
    fields.parse(",".join(f"a{n}" for n in range(100)))
    with pytest.raises(Problem, match="at most 100"):
        fields.parse(",".join(f"a{n}" for n in range(101)))


names = st.text("abc", min_size=1, max_size=2)
documents = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict))
paths = st.lists(names, min_size=1, max_size=4).map(".".join)


@given(documents, st.lists(paths, min_size=1, max_size=6))
def test_projection_holds_exactly_what_is_named(
    document: dict[str, Any], wanted: list[str]
) -> None:
    """Each named path that exists is in the answer unchanged, and every answer was named."""
    chosen = fields.project(document, fields.parse(",".join(wanted)))
    for path in wanted:
        assert at(chosen, path) == at(document, path)
    for leaf in leaves(chosen):
        assert at(document, leaf) is not None
        assert any(leaf == path or leaf.startswith(path + ".") for path in wanted)


@given(documents, st.lists(paths, min_size=1, max_size=6))
def test_order_of_paths_does_not_matter(document: dict[str, Any], wanted: list[str]) -> None:
    """The same paths in another order, or twice, ask for the same."""
    one = fields.project(document, fields.parse(",".join(wanted)))
    other = fields.project(document, fields.parse(",".join([*reversed(wanted), *wanted])))
    assert one == other


def at(document: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


def leaves(document: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in document.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found

"""Algebra of JSON documents: RFC 7396, differences, equality, shape."""

import pytest

from twin.effects import Refusal
from twin.patch import check_shape, difference, equal
from twin.state import Limits
from twin.wire.merge import merge_patch

# RFC 7396, appendix A.
VECTORS = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), VECTORS)
def test_merge_patch_gives_what_the_rfc_says(target, patch, result):
    """The fifteen examples of RFC 7396, appendix A."""
    assert merge_patch(target, patch) == result


def test_merge_patch_leaves_its_arguments():
    """A patched document is a new one."""
    target = {"a": {"b": 1}}
    assert merge_patch(target, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert target == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("wanted", "actual", "delta"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": {"b": 1}}),
        ({"a": {}}, {"a": {"b": 1}}, {}),
        ({"a": {}}, {}, {"a": {}}),
        ({"a": True}, {"a": 1}, {"a": True}),
        ({"a": 5}, {"a": 5.0}, {}),
    ],
)
def test_the_difference_is_what_is_missing_or_other(wanted, actual, delta):
    """Only what is wanted and not so; objects are compared member by member."""
    assert difference(wanted, actual) == delta


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([1, [True]], [1, [1]], False),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, False, False),
        ("a", "a", True),
    ],
)
def test_equality_is_that_of_json(one, other, same):
    """true is not 1, and 1 is 1.0, at any depth."""
    assert equal(one, other) is same
    assert equal(other, one) is same


def nested(levels):
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_depth_is_bounded():
    """Eight levels are accepted, nine are not, and a thousand do not exhaust the stack."""
    check_shape(nested(8), "desired", Limits())
    check_shape({"a": [[[[[[1]]]]]]}, "desired", Limits())
    for deep in (nested(9), nested(1000), {"a": [[[[[[[{}]]]]]]]}):
        with pytest.raises(Refusal, match="nested deeper than 8") as refused:
            check_shape(deep, "desired", Limits())
        assert (refused.value.status, refused.value.code) == (400, "too_deep")


def test_keys_are_bounded_in_bytes():
    """128 bytes of UTF-8 are accepted, one more is not, at any level."""
    check_shape({"ä" * 64: 1}, "desired", Limits())
    with pytest.raises(Refusal) as refused:
        check_shape({"a": [{"ä" * 64 + "a": 1}]}, "desired", Limits())
    assert (refused.value.status, refused.value.code) == (400, "key_too_long")

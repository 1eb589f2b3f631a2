"""The map of causes: as small as what it explains, and the longest pointer decides."""

import pytest

from twin.causes import merged, named, whole
from twin.wire.explain import cause_of
from twin.wire.merge import merge_patch

PART = ("config",)


def patched(*patches):
    """A map and a document after patches by the records r/0, r/1, ..."""
    causes, document = {"/created_at": "t/0"}, {}
    for number, patch in enumerate(patches):
        after = merge_patch(document, patch)
        causes, document = merged(causes, PART, patch, document, after, f"r/{number}"), after
    return causes, document


def test_one_record_that_says_all_is_one_entry():
    """However many members it says, and again when it says all anew."""
    causes, _ = patched({"a": 1, "b": {"c": 2}}, {"a": 1}, {"a": 2, "b": None, "d": 3})
    assert causes == {"/created_at": "t/0", "/config": "r/2"}


def test_what_another_record_changes_has_its_own_entry():
    """Down to the member of an object that a patch names; the others keep theirs."""
    causes, _ = patched({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 9}}, {"a": 7})
    assert causes["/config"] == "r/0"
    assert cause_of(causes, "/config/b/c") == "r/1"
    assert cause_of(causes, "/config/b/d") == "r/0"
    assert cause_of(causes, "/config/a") == "r/2"


def test_a_value_replaced_whole_forgets_what_was_below_it():
    """An object is replaced by a number, or set where there was none."""
    causes, _ = patched({"a": 1, "b": {"c": 2}}, {"b": {"c": 3}}, {"b": 4})
    assert "/config/b/c" not in causes
    assert cause_of(causes, "/config/b") == "r/2"


def test_an_entry_goes_with_its_member():
    """So the map does not grow with what is gone."""
    causes, _ = patched({"a": 1}, {"b": 2}, {"b": None})
    assert causes == {"/created_at": "t/0", "/config": "r/0"}


def test_an_emptied_part_is_of_the_record_that_emptied_it():
    """The empty object is a value, too."""
    causes, document = patched({"a": 1}, {"a": None})
    assert (document, cause_of(causes, "/config")) == ({}, "r/1")


def test_members_that_begin_alike_are_not_mixed_up():
    """a and ab, and names with slashes."""
    causes, _ = patched({"a": {"x": 1}, "ab": 2, "a/x": 3}, {"ab": 5}, {"a/x": 6}, {"a": 0})
    assert cause_of(causes, "/config/ab") == "r/1"
    assert cause_of(causes, "/config/a~1x") == "r/2"
    assert cause_of(causes, "/config/a") == "r/3"


def test_members_set_by_name():
    """Statuses and attributes: set whole, forgotten when they are gone."""
    causes = named({}, ("s",), ["a", "b"], {"a": 1, "b": 1}, "r/0")
    assert causes == {"/s": "r/0"}
    causes = named(causes, ("s",), ["b", "gone"], {"a": 1, "b": 2}, "r/1")
    assert causes == {"/s": "r/0", "/s/b": "r/1"}
    assert named(causes, ("s",), [], {"a": 1}, "r/2") == {"/s": "r/0"}


def test_a_part_set_whole_forgets_what_was_below_it():
    """Only below: neighbours stay."""
    causes = {"/a/b": "r/0", "/ab": "r/0"}
    assert whole(causes, ["/a"], "r/1") == {"/ab": "r/0", "/a": "r/1"}


@pytest.mark.parametrize("path", ["", "/x", "/x/y"])
def test_what_nothing_has_changed_is_of_what_made_the_twin(path):
    """And None when the document is older than its causes."""
    assert cause_of({"/created_at": "t/0", "/y": "r/1"}, path) == "t/0"
    assert cause_of({}, path) is None

"""The document's limit holds for everything that people, cars and models put into it."""

import pytest

from tests.twin_builders import World, kinds, reply, score
from twin.apply import Context, Limits
from twin.state import size
from twin.wire import topics

MOST = 4000


def world_of(**limits):
    world = World(Context(limits=Limits(document_bytes=MOST, **limits)))
    world.online(1)
    return world


def attributes(count):
    return {f"a{n}": "x" * 250 for n in range(count)}


def test_attributes_of_a_request_that_do_not_fit_are_refused():
    """413 document_too_large; what was there stays."""
    world = world_of()
    world.request("attributes", {"value": {"fleet": "berlin"}})
    effects = world.request("attributes", {"value": attributes(20)})
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (413, "document_too_large")
    assert str(MOST) in answer["detail"]
    assert world.twin["attributes"] == {"fleet": "berlin"}
    assert not effects.changed


def test_attributes_of_a_request_that_would_make_a_twin_make_none():
    """A refused request leaves no twin, tells nothing, and revision 0 is its answer's."""
    world = World(Context(limits=Limits(document_bytes=MOST)))
    effects = world.request("attributes", {"value": attributes(20)})
    assert (reply(effects)["status"], reply(effects)["revision"]) == (413, 0)
    assert (effects.changes, effects.changed, world.state) == ([], False, None)


def test_attributes_of_a_birth_that_do_not_fit_are_rejected():
    """too_large on `rejected`; the car is online all the same."""
    world = world_of()
    effects = world.online(2, attributes=attributes(20))
    assert effects.rejected is not None
    assert effects.rejected.reason == "too_large"
    assert world.twin["attributes"] == {}
    assert world.twin["presence"]["session"] == 2


def test_a_score_that_does_not_fit_is_rejected():
    """Its models name signals without end; health stays as it was."""
    world = world_of()
    record = score("alarm", 1)
    share = {"share": 0.1}
    record["models"] = {
        f"m{n}": {"version": "v", "signals": [{"signal": "s" * 250, **share}] * 8} for n in range(8)
    }
    effects = world.put(topics.SCORES, record)
    assert effects.rejected is not None
    assert effects.rejected.reason == "too_large"
    assert kinds(effects) == []
    assert world.twin["health"]["state"] == "insufficient_data"
    assert kinds(world.score("alarm", 2))[0] == "health"


def test_model_names_are_limited():
    """A name longer than 128 bytes is no model's."""
    world = world_of()
    record = score("alarm", 1)
    record["models"] = {"m" * 129: {"version": "v"}}
    with pytest.raises(Exception, match="128 bytes"):
        world.put(topics.SCORES, record)


def test_the_record_of_who_set_what_counts_for_the_limit():
    """Many properties, each of another record, are refused before they pass it."""
    world = world_of()
    for n in range(200):
        if reply(world.desire({f"p{n}": 1}))["status"] != 200:
            break
    assert n < 199
    assert MOST - 300 < size(world.twin) <= MOST


def test_what_makes_a_document_shorter_is_accepted_above_the_limit():
    """The twin's own parts may stand above the limit; removing something must still be possible."""
    world = world_of()
    assert reply(world.desire({"a": "x" * 800}))["status"] == 200
    for _ in range(50):
        world.order()
    assert size(world.twin) > MOST
    assert reply(world.desire({"b": 1}))["code"] == "document_too_large"
    assert reply(world.desire({"a": "x" * 790}))["status"] == 200
    assert reply(world.desire({"a": None}))["status"] == 200


def test_documents_are_limited_to_64_kb_unless_told_otherwise():
    """Law 9."""
    limits = Limits()
    assert (limits.document_bytes, limits.depth, limits.key_bytes, limits.open_commands) == (
        64 * 1024,
        8,
        128,
        50,
    )

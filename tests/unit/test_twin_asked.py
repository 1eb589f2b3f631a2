"""The same keyed request twice before its reply is there: one decision, one answer."""

import pytest

from tests.twin_builders import T0, World, kinds, reply
from twin import asked

KEY = {"request_id": "k1", "idempotency_key": "k", "body_hash": "h"}
DAY = 86_400_000


def connected():
    world = World()
    world.online(1)
    return world


def outcome(effects):
    answer = reply(effects)
    return answer["status"], answer.get("code"), answer["body"]


def test_a_second_cancel_answers_like_the_first():
    """200 with the cancelled command, not 410; the car is told once."""
    world = connected()
    ident, _ = world.order()
    first = world.cancel(ident, **KEY)
    again = world.cancel(ident, **KEY)
    assert outcome(again) == outcome(first)
    assert outcome(first)[0] == 200
    assert (again.downlinks, again.changes, again.changed) == ([], [], False)
    assert outcome(world.cancel(ident))[:2] == (410, "already_final")


def test_attributes_that_were_replaced_since_are_not_set_again():
    """A repetition that comes late does not undo what came between."""
    world = connected()
    world.request("attributes", {"value": {"fleet": "a"}}, **KEY)
    world.request("attributes", {"value": {"fleet": "b"}})
    again = world.request("attributes", {"value": {"fleet": "a"}}, **KEY)
    assert outcome(again) == (200, None, {"fleet": "b"})
    assert world.twin["attributes"] == {"fleet": "b"}


def test_the_request_that_made_the_twin_is_remembered():
    """201 again."""
    world = World()
    for _ in range(2):
        effects = world.request("attributes", {"value": {"fleet": "a"}}, **KEY)
        assert outcome(effects) == (201, None, {"fleet": "a"})


def test_a_second_command_is_the_first():
    """201 with the same command, although the repetition carries an id of its own."""
    world = connected()
    ident, _ = world.order(idempotency_key="k", body_hash="h")
    record = {"id": f"{ident[:-1]}0", "name": "ping"}
    request_id = f"r{world.requests}"
    again = world.request("command", record, **{**KEY, "request_id": request_id})
    assert (reply(again)["status"], reply(again)["body"]["id"]) == (201, ident)
    assert len(world.ledger.entries) == 1


def test_another_body_under_the_same_id_does_not_overwrite_the_first_answer():
    """Whoever waits for the first decision gets it; the other sees that the hash is not his."""
    world = connected()
    first = world.desire({"a": 1}, **KEY)
    other = world.desire({"a": 2}, **{**KEY, "body_hash": "other"})
    assert outcome(other) == outcome(first)
    assert reply(other)["body_hash"] == "h"
    assert world.twin["desired"]["properties"] == {"a": 1}
    assert kinds(other) == []


def test_a_refusal_is_decided_again():
    """It changed nothing, so what holds now counts."""
    world = connected()
    assert outcome(world.desire({"a": 1}, if_match=7, **KEY))[0] == 412
    for n in range(7):
        world.desire({"n": n})
    assert outcome(world.desire({"a": 1}, if_match=7, **KEY))[0] == 200


def test_a_key_is_free_again_after_a_day():
    """24 h from the first decision, as with the stored reply."""
    world = connected()
    world.desire({"a": 1}, **KEY)
    world.now = T0 + DAY - 1
    assert reply(world.desire({"a": 1}, **KEY))["body"]["version"] == 1
    world.now = T0 + DAY
    assert reply(world.desire({"a": 1}, **KEY))["body"]["version"] == 2


def test_what_is_remembered_is_bounded():
    """The oldest is forgotten first; requests without a key are not kept."""
    world = connected()
    world.desire({"a": 0})
    for n in range(asked.ASKED + 3):
        world.desire({"a": n}, request_id=f"k{n}", idempotency_key="k", body_hash="h")
    assert list(world.twin["asked"]) == [f"k{n}" for n in range(3, asked.ASKED + 3)]


@pytest.mark.parametrize("verdict", ["approve", "refuse"])
def test_a_request_that_was_refused_is_not_kept(verdict):
    """Of a twin that awaits nothing."""
    world = connected()
    assert outcome(world.answer(verdict, "no-rule", **KEY))[0] == 404
    assert "asked" not in world.twin

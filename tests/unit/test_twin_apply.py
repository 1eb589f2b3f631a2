"""The whole decision: making and deleting twins, answers, changes and revisions."""

import pytest

from tests.twin_builders import CAR, T0, World, kinds, reply, telemetry
from twin.apply import Context
from twin.wire import topics
from twin.wire.ids import command_id


@pytest.mark.parametrize("kind", ["desired", "command", "cancel", "delete"])
def test_a_request_to_an_unknown_vehicle_is_not_found(kind):
    """404 twin_not_found; no twin is made."""
    world = World()
    effects = world.request(kind, {"op": "patch", "value": {}})
    answer = reply(effects)
    assert (answer["status"], answer["code"], answer["revision"]) == (404, "twin_not_found", 0)
    assert CAR in answer["detail"]
    assert world.state is None


def test_put_attributes_makes_a_twin_and_replaces_all():
    """201 the first time, 200 then; what is not named is gone; the same again changes nothing."""
    world = World()
    effects = world.request("attributes", {"value": {"fleet": "berlin", "model": "m1"}})
    assert (reply(effects)["status"], reply(effects)["revision"]) == (201, 1)
    assert kinds(effects) == ["created", "attributes"]
    effects = world.request("attributes", {"value": {"fleet": "paris"}})
    assert (reply(effects)["status"], reply(effects)["body"]) == (200, {"fleet": "paris"})
    assert world.twin["attributes"] == {"fleet": "paris"}
    effects = world.request("attributes", {"value": {"fleet": "paris"}})
    assert (reply(effects)["status"], effects.changed) == (200, False)


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [
        ("berlin", 400, "bad_request"),
        ({"fleet": 1}, 400, "bad_request"),
        ({"fleet": "x" * 257}, 400, "bad_request"),
        ({"k" * 129: "x"}, 400, "key_too_long"),
        ({f"a{n}": "x" for n in range(33)}, 413, "document_too_large"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_attributes_over_a_limit_are_refused(value, status, code, known):
    """With and without a twin; a refusal makes none."""
    world = World()
    if known:
        world.telemetry(speed=1.0)
    answer = reply(world.request("attributes", {"value": value}))
    assert (answer["status"], answer["code"]) == (status, code)
    assert (world.state is not None) is known


def test_a_deleted_twin_goes_with_its_commands():
    """204, told, every ledger entry removed; the next message makes a new twin."""
    world = World()
    world.online(1)
    first, _ = world.order()
    world.outcome(first, "succeeded")
    second, _ = world.order()
    revision = world.twin["revision"]
    effects = world.request("delete", {})
    assert (reply(effects)["status"], reply(effects)["revision"]) == (204, revision + 1)
    assert set(effects.removed) == {first, second}
    assert kinds(effects) == ["deleted"]
    assert world.state is None
    assert world.outcome(second, "succeeded").rejected is not None
    world.telemetry(speed=1.0)
    assert world.twin["revision"] == 1


def test_deleting_a_twin_withdraws_what_the_car_may_have():
    """A command without a ledger must not run; those that were never said need no word."""
    world = World()
    world.online(1)
    said, _ = world.order(lane="door")
    waiting, _ = world.order(lane="door")
    effects = world.request("delete", {})
    assert [(d["kind"], d["ref"]) for d in effects.downlinks] == [("cancel", said), ("forget", "1")]
    assert effects.changes[0]["what"] == {"by": "ann", "commands": [said, waiting]}


@pytest.mark.parametrize("last", ["online", "offline"])
def test_a_broker_is_told_to_forget_the_status_of_a_deleted_twin(last):
    """At the shard of its presence, once; what became of that changes no twin."""
    world = World()
    world.online(4, shard=2)
    getattr(world, last)(5, shard=3)
    (forget,) = world.request("delete", {}).downlinks
    assert (forget["kind"], forget["shard"], forget["session"]) == ("forget", 3, 5)
    assert (forget["payload"], "expires_at" in forget) == ({}, False)
    assert world.delivery("5", kind="forget").outdated
    world.telemetry(speed=1.0)
    made = world.twin["revision"]
    assert world.delivery("5", kind="forget").outdated
    assert world.twin["revision"] == made
    # Without a status no broker is known.
    assert world.request("delete", {}).downlinks == []


def test_without_auto_create_only_the_api_makes_twins():
    """A message of an unknown vehicle is rejected with its reason."""
    world = World(Context(auto_create=False))
    for effects in (world.telemetry(speed=1.0), world.online(1), world.reported(1, 1, {})):
        assert effects.rejected is not None
        assert effects.rejected.reason == "unknown_vehicle"
    assert world.state is None
    world.request("attributes", {"value": {}})
    assert world.telemetry(speed=1.0).changed


@pytest.mark.parametrize(
    "say",
    [
        lambda world: world.delivery("1", kind="desired"),
        lambda world: world.due("presence", "1", T0),
        lambda world: world.due("command", command_id(CAR, T0, "x"), T0),
        lambda world: world.due("desired", "1", T0),
        lambda world: world.score("alarm", 1),
    ],
)
def test_what_only_follows_on_a_twin_makes_none(say):
    """Deliveries, scores and deadlines of a deleted twin."""
    world = World()
    assert say(world).outdated
    assert world.state is None


def test_changes_name_revision_time_and_record():
    """id = vehicle:created_at:topic/partition/offset:n, so a repeat shows; why = the record, too."""
    world = World()
    effects = world.online(1, attributes={"fleet": "berlin"})
    assert [c["id"] for c in effects.changes] == [f"{CAR}:{T0}:presence/3/0:{n}" for n in range(3)]
    assert {c["revision"] for c in effects.changes} == {1}
    assert effects.changes[0]["why"] == {"topic": "presence", "partition": 3, "offset": 0}
    assert effects.changes[0]["at"] == T0


def test_plain_telemetry_tells_no_change():
    """The revision grows, the topic `changes` stays quiet."""
    world = World()
    world.telemetry(speed=1.0)
    world.now += 1
    effects = world.telemetry(speed=2.0)
    assert effects.changed
    assert not effects.changes
    assert world.twin["updated_at"] == T0 + 1


def test_a_reply_carries_the_hash_of_its_request():
    """So a repetition under the same key with another body is told."""
    world = World()
    world.telemetry(speed=1.0)
    assert reply(world.desire({"a": 1}, body_hash="h"))["body_hash"] == "h"


def test_a_refused_request_is_applied_once_and_grows_no_revision():
    """Its offset counts, its answer does not come twice."""
    world = World()
    world.telemetry(speed=1.0)
    effects = world.desire([1])
    assert reply(effects)["revision"] == world.twin["revision"] == 1
    assert world.twin["applied"]["requests"] == [3, 0]
    topic, value, position, at = world.log[-1]
    again = world.feed(topic, value, position, at)
    assert again.repeated
    assert again.replies == []


def test_outputs_do_not_share_what_telemetry_changes_in_place():
    """A change that was told does not move with the next record."""
    world = World()
    world.online(1)
    effects = world.order()[1]
    before = str(effects.changes), str(effects.downlinks), str(effects.replies)
    for n in range(3):
        world.now += 1
        world.put(topics.TELEMETRY, telemetry(world.now, 1, n, speed=float(n)))
        world.outcome(effects.ledger[0]["id"], "running", progress=0.1 * n)
    assert (str(effects.changes), str(effects.downlinks), str(effects.replies)) == before


def test_a_twin_made_again_tells_under_other_ids():
    """All in one millisecond: who drops repeats by id must not drop what is new."""
    world = World()
    lives = []
    for _ in range(2):
        made = [*world.online(1).changes, *world.desire({"a": 1}).changes]
        sent = world.desire({"a": 2}).downlinks
        lives.append({told["id"] for told in (*made, *sent)})
        world.request("delete", {})
    assert len(lives[0]) == len(lives[1]) == 4
    assert not lives[0] & lives[1]

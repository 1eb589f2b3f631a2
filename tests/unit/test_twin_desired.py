"""Desired, config, delta: versions, statuses per property, what is said to the car and when."""

import orjson
import pytest

from tests.twin_builders import T0, World, kinds, reply
from twin.apply import Context, Limits, deadlines_of
from twin.document import dump
from twin.wire.explain import explain

DESIRED_TTL = Context().desired_ttl_ms


def states(world):
    return {name: s["state"] for name, s in world.twin["desired"]["status"].items()}


def known():
    """A world with a twin of a car that is not online."""
    world = World()
    world.telemetry(speed=1.0)
    return world


def connected():
    world = World()
    world.online(1)
    return world


def test_a_patch_is_accepted_with_a_new_version():
    """The answer holds version, properties, statuses and delta; the change names who asked."""
    world = known()
    effects = world.desire({"a": 1, "b": {"c": 2}})
    answer = reply(effects)
    assert (answer["status"], answer["revision"]) == (200, 2)
    assert answer["body"]["version"] == 1
    assert answer["body"]["properties"] == {"a": 1, "b": {"c": 2}}
    assert answer["body"]["delta"] == {"a": 1, "b": {"c": 2}}
    assert states(world) == {"a": "pending", "b": "pending"}
    (change,) = effects.changes
    assert change["what"]["by"] == "ann"


def test_a_patch_merges_and_a_put_replaces():
    """RFC 7396: null removes; PUT leaves only what it names, without nulls."""
    world = known()
    world.desire({"a": 1, "b": {"c": 2, "d": 3}})
    world.desire({"a": None, "b": {"c": None}})
    assert world.twin["desired"]["properties"] == {"b": {"d": 3}}
    world.desire({"x": 1, "y": None}, op="put")
    desired = world.twin["desired"]
    assert (desired["version"], desired["properties"]) == (3, {"x": 1})
    assert set(desired["status"]) == {"x"}


def test_an_if_match_of_another_version_is_refused():
    """412 version_mismatch with the version that is."""
    world = known()
    world.desire({"a": 1}, if_match=0)
    answer = reply(world.desire({"a": 2}, if_match=0))
    assert (answer["status"], answer["code"]) == (412, "version_mismatch")
    assert answer["body"] == {"version": 1}
    assert world.twin["desired"]["properties"] == {"a": 1}
    assert reply(world.desire({"a": 2}, if_match=1))["status"] == 200


def nested(levels):
    value = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [
        pytest.param(nested(9), 400, "too_deep", id="nine levels"),
        pytest.param({"k" * 129: 1}, 400, "key_too_long", id="a key of 129 bytes"),
        pytest.param({"a": "x" * 66_000}, 413, "document_too_large", id="over 64 KB"),
        pytest.param([1], 400, "bad_request", id="no object"),
    ],
)
def test_what_is_over_a_limit_is_refused_whole(value, status, code):
    """Each limit has its code, and nothing of the request remains."""
    world = known()
    before = (world.twin["revision"], dict(world.twin["desired"]))
    effects = world.desire(value)
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (status, code)
    assert answer["detail"]
    assert (world.twin["revision"], world.twin["desired"]) == before
    assert not effects.changed


def test_the_operation_is_patch_or_put():
    """Anything else is a bad request."""
    answer = reply(known().desire({"a": 1}, op="drop"))
    assert (answer["status"], answer["code"]) == (400, "bad_request")


def test_the_merged_document_is_what_the_limit_bounds():
    """Patches that each fit are refused when their sum does not."""
    world = World(Context(limits=Limits(document_bytes=3000)))
    world.telemetry(speed=1.0)
    answers = [reply(world.desire({f"k{n}": "x" * 500}))["status"] for n in range(4)]
    assert 200 in answers
    assert answers[-1] == 413


def test_a_keyed_request_counts_once():
    """The same request again gives the same version, and so does another body under its id."""
    world = known()
    key = {"request_id": "k1", "idempotency_key": "abc", "body_hash": "h1"}
    world.desire({"a": 1}, **key)
    again = world.desire({"a": 1}, **key)
    assert (reply(again)["status"], reply(again)["body"]["version"]) == (200, 1)
    assert not again.changed
    other = reply(world.desire({"a": 2}, **{**key, "body_hash": "h2"}))
    assert (other["status"], other["body"]["properties"]) == (200, {"a": 1})
    assert other["body_hash"] == "h1"


def test_an_online_car_is_told_at_once_and_the_broker_makes_it_sent():
    """Downlink with version and delta; `sent` follows the delivery, and an old one changes nothing."""
    world = connected()
    effects = world.desire({"a": 1})
    (downlink,) = effects.downlinks
    assert (downlink["kind"], downlink["ref"], downlink["session"]) == ("desired", "1", 1)
    assert downlink["payload"] == {"version": 1, "delta": {"a": 1}}
    assert states(world) == {"a": "pending"}
    world.delivery("0", kind="desired")
    assert states(world) == {"a": "pending"}
    world.delivery("1", kind="desired")
    assert states(world) == {"a": "sent"}
    assert world.delivery("1", kind="desired").outdated


def refusal(world, ref, session, reason, name="a"):
    """The broker refuses a delta; what the change tells and what the status says then."""
    effects = world.delivery(
        ref,
        kind="desired",
        state="refused",
        session=session,
        **({"reason": reason} if reason else {}),
    )
    return [c["what"] for c in effects.changes], world.twin["desired"]["status"][name]


def test_a_refused_delta_says_why():
    """Still pending, with the reason; told once; gone when the broker takes it in the next session."""
    world = connected()
    world.desire({"a": 1})
    before = world.twin["desired"]["status"]["a"]
    told, status = refusal(world, "1", 1, "packet_too_large")
    assert told == [
        {"version": 1, "status": {"a": "pending"}, "session": 1, "reason": "packet_too_large"}
    ]
    assert status == {**before, "reason": "packet_too_large"}
    assert world.delivery(
        "1", kind="desired", state="refused", session=1, reason="packet_too_large"
    ).outdated
    found = explain(orjson.loads(dump(world.twin)), "desired.status.a.reason")
    assert (found["value"], found["record"]["topic"], found["record"]["offset"]) == (
        "packet_too_large", "deliveries", 0
    )  # fmt: skip
    assert world.online(1).downlinks == []
    assert [d["payload"]["delta"] for d in world.online(2).downlinks] == [{"a": 1}]
    world.delivery("1", kind="desired", session=2)
    assert world.twin["desired"]["status"]["a"] == {
        "state": "sent", "since": world.now, "version": 1, "until": before["until"]
    }  # fmt: skip


def test_what_was_sent_once_and_is_refused_now_says_so():
    """`sent` stays, for the car may have it; the next one that the broker takes clears the reason."""
    world = connected()
    world.desire({"a": 1})
    world.delivery("1", kind="desired")
    world.online(2)
    told, status = refusal(world, "1", 2, "not_authorized")
    assert (told[0]["status"], status["state"]) == ({"a": "sent"}, "sent")
    assert status["reason"] == "not_authorized"
    world.online(3)
    effects = world.delivery("1", kind="desired", session=3)
    assert kinds(effects) == ["desired"]
    assert "reason" not in world.twin["desired"]["status"]["a"]


def test_a_refusal_of_an_old_version_says_nothing_of_what_was_asked_since():
    """Nor of what the car has confirmed."""
    world = connected()
    world.desire({"a": 1, "b": 1})
    world.reported(1, 1, {"b": 1}, desired_version=1)
    world.desire({"a": 2})
    assert refusal(world, "1", 1, "expired")[0] == []
    told, _ = refusal(world, "2", 1, "expired")
    assert [what["status"] for what in told] == [{"a": "pending"}]
    assert refusal(world, "nonsense", 1, "expired")[0] == []


def test_the_reason_of_a_refusal_is_short_and_outlives_the_expiry():
    """Kept per property; why it was never said is worth knowing when it has expired."""
    world = connected()
    world.desire({"a": 1})
    _, status = refusal(world, "1", 1, "x" * 999)
    assert status["reason"] == "x" * 64
    assert refusal(world, "1", 1, None)[1]["reason"]
    world.due("desired", "1", T0 + DESIRED_TTL)
    status = world.twin["desired"]["status"]["a"]
    assert (status["state"], status["reason"]) == ("expired", "refused by the broker")


def test_nothing_is_said_when_nothing_differs():
    """What the car has already is acked at once."""
    world = connected()
    world.reported(1, 1, {"a": 1})
    effects = world.desire({"a": 1})
    assert effects.downlinks == []
    assert states(world) == {"a": "acked"}


def test_an_offline_car_is_told_once_in_each_new_session():
    """On the birth, not again on a repeated one, and again in the next session."""
    world = known()
    assert world.desire({"a": 1}).downlinks == []
    assert [d["payload"]["delta"] for d in world.online(1).downlinks] == [{"a": 1}]
    assert world.online(1).downlinks == []
    assert [d["payload"]["delta"] for d in world.online(2).downlinks] == [{"a": 1}]


def test_a_confirmation_acks_and_empties_the_delta():
    """The car's value equals the wanted one: acked, told, delta empty."""
    world = connected()
    world.desire({"a": 1, "b": 2})
    world.delivery("1", kind="desired")
    effects = world.reported(1, 1, {"a": 1, "b": 2}, desired_version=1)
    assert states(world) == {"a": "acked", "b": "acked"}
    assert world.twin["delta"] == {}
    assert kinds(effects) == ["config", "desired"]


def test_another_value_with_the_wanted_version_has_diverged():
    """The car knew what was wanted and has something else; a later right value wins."""
    world = connected()
    world.desire({"a": 1, "b": 2})
    world.reported(1, 1, {"a": 9}, desired_version=1)
    assert states(world) == {"a": "diverged", "b": "pending"}
    assert world.twin["delta"] == {"a": 1, "b": 2}
    world.reported(1, 2, {"a": 1}, desired_version=1)
    assert states(world)["a"] == "acked"


def test_another_value_of_an_older_version_is_not_divergence():
    """The car had not heard of the new version yet."""
    world = connected()
    world.desire({"a": 1})
    world.desire({"a": 2})
    world.reported(1, 1, {"a": 1}, desired_version=1)
    assert states(world) == {"a": "pending"}


def test_a_car_that_goes_back_by_itself_is_asked_once_more():
    """After a restart with its default: pending again, said once in the session, never in a loop."""
    world = connected()
    world.desire({"a": 1})
    world.reported(1, 1, {"a": 1}, desired_version=1)
    world.online(2)
    effects = world.reported(2, 1, {"a": 7})
    assert states(world) == {"a": "pending"}
    assert [d["payload"]["delta"] for d in effects.downlinks] == [{"a": 1}]
    assert [d.of for d in effects.deadlines] == ["desired"]
    assert world.reported(2, 2, {"a": 8}).downlinks == []


def test_older_confirmations_are_ignored():
    """(session, sequence) orders them; equal ones are repeats."""
    world = connected()
    world.reported(2, 5, {"a": 1})
    for session, sequence in [(2, 5), (2, 4), (1, 9)]:
        assert world.reported(session, sequence, {"a": 0}).outdated
    assert world.twin["config"] == {"a": 1}
    world.reported(3, 0, {"a": None, "b": True})
    assert world.twin["config"] == {"b": True}
    assert world.twin["confirmed"]["session"] == 3


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"a": "x" * 66_000}, "too_large"),
        (nested(9), "too_deep"),
        ({"k" * 129: 1}, "limit_reached"),
    ],
)
def test_a_confirmation_over_a_limit_is_rejected_with_its_reason(properties, reason):
    """It belongs on `rejected`; config and order stay."""
    world = connected()
    effects = world.reported(1, 1, properties)
    assert effects.rejected is not None
    assert effects.rejected.reason == reason
    assert world.twin["config"] == {}
    assert not effects.changed
    assert not world.reported(1, 1, {"a": 1}).outdated


def test_what_is_not_confirmed_in_time_is_expired_and_may_still_be_confirmed():
    """A notice, not an end: it stays in the delta, and a late confirmation wins."""
    world = connected()
    effects = world.desire({"a": 1})
    (deadline,) = [d for d in effects.deadlines if d.of == "desired"]
    assert (deadline.ref, deadline.due) == ("1", T0 + DESIRED_TTL)
    world.due("desired", "1", deadline.due)
    assert states(world) == {"a": "expired"}
    assert world.twin["delta"] == {"a": 1}
    world.reported(1, 1, {"a": 1}, desired_version=1)
    assert states(world) == {"a": "acked"}


def test_a_deadline_of_what_was_confirmed_or_asked_anew_does_nothing():
    """Outdated: the property is acked, or belongs to a later version."""
    world = connected()
    world.desire({"a": 1, "b": 1})
    world.reported(1, 1, {"a": 1}, desired_version=1)
    world.now += 10
    world.desire({"b": 2})
    before = world.twin["revision"]
    effects = world.due("desired", "1", T0 + DESIRED_TTL)
    assert effects.outdated
    assert world.twin["revision"] == before
    assert states(world) == {"a": "acked", "b": "pending"}


def test_a_deadline_that_was_put_off_is_armed_again():
    """The property went back and was asked for again: the first deadline waits for the new end."""
    world = connected()
    world.desire({"a": 1})
    world.reported(1, 1, {"a": 1}, desired_version=1)
    world.now += 1000
    world.reported(1, 2, {"a": 7})
    effects = world.due("desired", "1", T0 + DESIRED_TTL)
    assert states(world) == {"a": "pending"}
    assert [d.due for d in effects.deadlines] == [T0 + 1000 + DESIRED_TTL]
    assert deadlines_of(world.twin, world.context)[-1].due == T0 + 1000 + DESIRED_TTL


def test_statuses_of_properties_that_a_patch_does_not_name_stay():
    """Only what is asked for begins anew; asking again for the same value does, too."""
    world = connected()
    world.desire({"a": 1, "b": 1})
    world.delivery("1", kind="desired")
    world.now += 5
    world.desire({"b": 1})
    status = world.twin["desired"]["status"]
    assert (status["a"]["state"], status["a"]["version"], status["a"]["since"]) == ("sent", 1, T0)
    assert (status["b"]["state"], status["b"]["version"]) == ("pending", 2)

"""Presence by session number, stale by deadline, attributes of the birth, and who is spoken to."""

import pytest

from tests.twin_builders import T0, World, kinds, reply
from twin.apply import Context, deadlines_of

STALE = Context().stale_after_ms
DEBOUNCE = Context().debounce_ms


def shown(world):
    presence = world.twin["presence"]
    return presence["state"], presence["session"], presence["shard"]


def test_a_birth_makes_the_car_online():
    """State, session, shard and since are those of the birth; a deadline watches for silence."""
    world = World()
    effects = world.online(5, shard=2)
    assert shown(world) == ("online", 5, 2)
    assert world.twin["presence"]["since"] == T0
    assert kinds(effects) == ["created", "presence"]
    assert [(d.of, d.ref, d.due) for d in effects.deadlines] == [("presence", "5", T0 + STALE)]


@pytest.mark.parametrize("state", ["online", "offline"])
def test_a_status_of_an_old_session_changes_nothing(state):
    """The will of a former connection comes late and is ignored."""
    world = World()
    world.online(5)
    before = world.twin["revision"]
    effects = getattr(world, state)(4)
    assert shown(world)[:2] == ("online", 5)
    assert effects.outdated
    assert world.twin["revision"] == before


def test_the_will_of_the_session_ends_it_and_its_birth_cannot_begin_it_again():
    """offline after online of one session; the same birth again, retained, changes nothing."""
    world = World()
    world.online(5)
    world.offline(5, reason="keep alive")
    assert shown(world)[:2] == ("offline", 5)
    assert world.twin["presence"]["reason"] == "keep alive"
    assert world.online(5).outdated
    assert shown(world)[:2] == ("offline", 5)
    world.online(6)
    assert shown(world)[:2] == ("online", 6)


def test_a_will_that_overtakes_its_birth_holds():
    """Even as the first thing heard of a car, and for a newer session than the known one."""
    world = World()
    world.offline(5)
    assert world.online(5).outdated
    assert shown(world)[:2] == ("offline", 5)
    world.online(6)
    world.offline(7)
    assert shown(world)[:2] == ("offline", 7)


def test_a_repeated_birth_is_outdated():
    """A retained status that is read again tells nothing new."""
    world = World()
    world.online(5)
    assert world.online(5).outdated


def test_the_birth_says_attributes_and_keeps_the_others():
    """Attributes are merged; only what is new is told."""
    world = World()
    world.online(1, attributes={"fleet": "berlin", "model": "m1"})
    effects = world.online(2, attributes={"model": "m1", "firmware": "2001"})
    assert world.twin["attributes"] == {"fleet": "berlin", "model": "m1", "firmware": "2001"}
    told = [c["what"]["attributes"] for c in effects.changes if c["kind"] == "attributes"]
    assert told == [{"firmware": "2001"}]


def test_too_many_attributes_are_told_and_the_presence_still_counts():
    """What a birth brings beyond the limit goes to `rejected`, the car is online all the same."""
    world = World()
    world.online(1, attributes={f"a{n}": "x" for n in range(30)})
    effects = world.online(2, attributes={f"b{n}": "x" for n in range(30)})
    assert effects.rejected is not None
    assert effects.rejected.reason == "limit_reached"
    assert shown(world)[:2] == ("online", 2)
    assert len(world.twin["attributes"]) == 30


def test_silence_makes_an_online_car_stale():
    """The deadline finds no new telemetry and says so, with since and reason."""
    world = World()
    world.online(5)
    effects = world.due("presence", "5", T0 + STALE)
    assert shown(world)[:2] == ("stale", 5)
    assert world.twin["presence"]["reason"] == "no new telemetry for 120 s"
    assert kinds(effects) == ["presence"]
    assert not effects.replies


def test_telemetry_puts_the_deadline_off():
    """A deadline that came too early changes nothing and waits for the last telemetry's."""
    world = World()
    world.online(5)
    world.now += 1000
    world.telemetry(5, speed=1.0)
    before = world.twin["revision"]
    effects = world.due("presence", "5", T0 + STALE)
    assert shown(world)[0] == "online"
    assert effects.outdated
    assert world.twin["revision"] == before
    assert [d.due for d in effects.deadlines] == [T0 + 1000 + STALE]
    world.due("presence", "5", T0 + 1000 + STALE)
    assert shown(world)[0] == "stale"


def test_a_deadline_of_another_session_or_of_an_offline_car_does_nothing():
    """Outdated deadlines are ignored whole."""
    world = World()
    world.online(5)
    world.online(6)
    assert world.due("presence", "5", T0 + 10 * STALE).outdated
    assert shown(world)[:2] == ("online", 6)
    world.offline(6)
    effects = world.due("presence", "6", T0 + 20 * STALE)
    assert (shown(world)[0], effects.deadlines) == ("offline", [])


@pytest.mark.parametrize(
    ("session", "state"),
    [
        pytest.param(5, "online", id="telemetry of the session"),
        pytest.param(0, "online", id="telemetry without a session number"),
        pytest.param(4, "stale", id="what was kept from an old session"),
    ],
)
def test_new_telemetry_of_the_session_ends_stale(session, state):
    """Old sessions' messages say nothing of the living connection."""
    world = World()
    world.online(5)
    world.due("presence", "5", T0 + STALE)
    effects = world.telemetry(session, speed=1.0)
    assert shown(world)[0] == state
    assert len(effects.deadlines) == (state == "online")


def test_late_telemetry_does_not_end_stale():
    """Only values that are new to the twin are a sign of life."""
    world = World()
    world.online(5)
    world.telemetry(5, speed=1.0)
    world.due("presence", "5", T0 + STALE)
    world.now = T0
    world.telemetry(5, speed=1.0)
    assert shown(world)[0] == "stale"


def test_commands_wait_while_a_car_is_stale_and_go_when_it_is_back():
    """Each is said once in the session: the one sent before is not said again."""
    world = World()
    world.online(5)
    first, _ = world.order()
    world.due("presence", "5", T0 + STALE)
    second, effects = world.order()
    assert effects.downlinks == []
    effects = world.telemetry(5, speed=1.0)
    assert [d["ref"] for d in effects.downlinks] == [second]
    assert first != second


def test_a_car_that_never_said_a_status_stays_unknown():
    """Telemetry alone makes no presence, and nothing is sent to such a car."""
    world = World()
    world.telemetry(7, speed=1.0)
    assert shown(world) == ("unknown", 0, -1)
    _, effects = world.order()
    assert reply(effects)["status"] == 201
    assert effects.downlinks == []


def test_the_stale_deadline_is_rebuilt_after_a_recovery():
    """From the last telemetry while online, and none otherwise."""
    world = World()
    world.online(5)
    world.now += 500
    world.telemetry(5, speed=1.0)
    (deadline,) = deadlines_of(world.twin, world.context)
    assert (deadline.of, deadline.ref, deadline.due) == ("presence", "5", T0 + 500 + STALE)
    world.offline(5)
    (deadline,) = deadlines_of(world.twin, world.context)
    assert (deadline.ref, deadline.due) == ("5", world.now + DEBOUNCE)
    world.due("presence", "5", deadline.due)
    assert deadlines_of(world.twin, world.context) == []


def test_the_last_sign_of_life_does_not_go_back_in_time():
    """A record that arrived earlier and is applied later does not bring silence nearer."""
    world = World()
    world.online(5)
    world.now += 1000
    world.telemetry(5, speed=1.0)
    world.now -= 500
    world.telemetry(5, coolant_temp=90.0)
    assert world.twin["presence"]["seen"] == T0 + 1000


# --- debounce -------------------------------------------------------------------------------------


def told(effects):
    return [
        (c["what"]["from"], c["what"]["state"]) for c in effects.changes if c["kind"] == "presence"
    ]


def test_an_offline_is_shown_at_once_and_told_when_it_has_lasted():
    """The document says offline; `changes` say it after the debounce time, with the will as cause."""
    world = World()
    world.online(5)
    world.now += 1000
    effects = world.offline(5, reason="keep alive")
    will = {"topic": "presence", "partition": 3, "offset": 1}
    assert told(effects) == []
    assert effects.changed
    assert (shown(world)[0], world.twin["presence"]["told"]) == ("offline", "online")
    (deadline,) = effects.deadlines
    assert (deadline.of, deadline.ref, deadline.due) == ("presence", "5", world.now + DEBOUNCE)
    effects = world.due("presence", "5", deadline.due)
    (change,) = effects.changes
    assert told(effects) == [("online", "offline")]
    assert (change["why"], change["what"]["since"]) == (will, T0 + 1000)
    assert change["what"]["reason"] == "keep alive"
    assert "told" not in world.twin["presence"]


@pytest.mark.parametrize("will", [True, False], ids=["with its will", "will lost"])
def test_a_short_drop_tells_nothing_and_sends_what_is_open_once(will):
    """Back within the debounce time: no presence change, one more hand-out of commands and delta."""
    world = World()
    world.online(5)
    ident, _ = world.order()
    world.desire({"a": 1})
    world.now += 1000
    if will:
        world.offline(5)
        world.now += DEBOUNCE - 1
    effects = world.online(6)
    assert kinds(effects) == []
    assert [(d["kind"], d["session"]) for d in effects.downlinks] == [
        ("command", 6),
        ("desired", 6),
    ]
    assert effects.downlinks[0]["ref"] == ident
    assert world.online(6).downlinks == []
    assert world.due("presence", "5", world.now + DEBOUNCE).outdated


def test_a_birth_with_nothing_open_is_only_a_new_session():
    """Of a fleet that reconnects each car writes its twin, and nothing else."""
    world = World()
    world.online(5, attributes={"fleet": "berlin"})
    world.offline(5)
    effects = world.online(6, attributes={"fleet": "berlin"})
    assert (effects.changes, effects.downlinks, effects.ledger) == ([], [], [])
    assert shown(world)[:2] == ("online", 6)


def test_after_an_offline_was_told_the_return_is_told_at_once():
    """One change for each, in their order."""
    world = World()
    world.online(5)
    world.offline(5)
    world.due("presence", "5", world.now + DEBOUNCE)
    assert told(world.online(6)) == [("offline", "online")]


def test_a_second_drop_waits_anew():
    """The deadline of the first drop comes in the second: it is early and armed again."""
    world = World()
    world.online(5)
    world.offline(5)
    world.now += 3000
    world.online(6)
    world.offline(6)
    assert world.due("presence", "5", T0 + DEBOUNCE).outdated
    effects = world.due("presence", "6", T0 + DEBOUNCE)
    assert effects.outdated
    assert [d.due for d in effects.deadlines] == [T0 + 3000 + DEBOUNCE]
    assert told(world.due("presence", "6", T0 + 3000 + DEBOUNCE)) == [("online", "offline")]


def test_a_stale_car_that_leaves_and_returns_is_told_from_what_was_told():
    """stale is told at once; the drop is not, so the return is told against stale."""
    world = World()
    world.online(5)
    world.due("presence", "5", T0 + STALE)
    world.offline(5)
    assert world.twin["presence"]["told"] == "stale"
    assert told(world.online(6)) == [("stale", "online")]


def test_a_car_heard_of_by_its_will_alone_is_told_offline():
    """unknown -> offline waits like any other."""
    world = World()
    assert told(world.offline(5)) == []
    assert told(world.due("presence", "5", T0 + DEBOUNCE)) == [("unknown", "offline")]

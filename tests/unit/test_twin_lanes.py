"""Lanes: commands of one lane go one after the other; lanes do not wait for each other."""

import pytest

from tests.twin_builders import T0, World, reply
from twin.apply import Context

OVERDUE = Context().overdue_after_ms


def connected():
    world = World()
    world.online(1)
    return world


def refs(effects, kind="command"):
    return [d["ref"] for d in effects.downlinks if d["kind"] == kind]


def test_commands_without_a_lane_do_not_wait():
    """Each goes out when it is asked for."""
    world = connected()
    for _ in range(3):
        ident, effects = world.order()
        assert refs(effects) == [ident]
        assert world.ledger.entries[ident]["lane"] == "default"


def test_the_next_of_a_lane_goes_out_when_the_one_before_has_ended():
    """Not when it is sent, received or running; then at once, and only the next."""
    world = connected()
    first, effects = world.order(lane="door")
    assert refs(effects) == [first]
    second, effects = world.order(lane="door")
    third, _ = world.order(lane="door")
    assert effects.downlinks == []
    assert world.state_of(second) == "queued"
    assert refs(world.delivery(first)) == []
    for said in ("received", "accepted", "running"):
        assert refs(world.outcome(first, said)) == []
    assert refs(world.outcome(first, "succeeded")) == [second]
    assert refs(world.outcome(second, "rejected")) == [third]


def test_a_stuck_command_does_not_block_another_lane():
    """The head of one lane is silent; the other lane goes on."""
    world = connected()
    stuck, _ = world.order(lane="door")
    world.delivery(stuck)
    blocked, _ = world.order(lane="door")
    other, effects = world.order(lane="seat")
    assert refs(effects) == [other]
    after, _ = world.order(lane="seat")
    assert refs(world.outcome(other, "failed")) == [after]
    assert world.state_of(blocked) == "queued"


def test_a_silent_head_gives_way_at_its_expiry():
    """overdue is a doubt and holds the lane; expired ends it."""
    world = connected()
    stuck, _ = world.order(lane="door", ttl_s=120)
    world.delivery(stuck)
    after, _ = world.order(lane="door")
    assert refs(world.due("command", stuck, T0 + OVERDUE)) == []
    assert world.state_of(stuck) == "overdue"
    assert refs(world.due("command", stuck, T0 + 120_000)) == [after]
    assert world.state_of(stuck) == "expired"


def test_a_running_head_that_falls_silent_gives_way_after_two_silences():
    """Beyond its expiry, since the car was at it."""
    world = connected()
    stuck, _ = world.order(lane="door", ttl_s=10)
    world.outcome(stuck, "running")
    after, _ = world.order(lane="door")
    (deadline,) = world.due("command", stuck, T0 + OVERDUE).deadlines
    assert refs(world.due("command", stuck, deadline.due)) == [after]
    assert deadline.due == T0 + 2 * OVERDUE


def test_a_cancelled_head_is_withdrawn_before_the_next_goes_out():
    """The car hears of the cancel first."""
    world = connected()
    head, _ = world.order(lane="door")
    after, _ = world.order(lane="door")
    effects = world.cancel(head)
    assert [(d["kind"], d["ref"]) for d in effects.downlinks] == [
        ("cancel", head),
        ("command", after),
    ]


def test_cancelling_one_that_waits_sends_nothing():
    """It was never said; the head keeps the lane."""
    world = connected()
    head, _ = world.order(lane="door")
    waiting, _ = world.order(lane="door")
    last, _ = world.order(lane="door")
    assert world.cancel(waiting).downlinks == []
    assert refs(world.outcome(head, "succeeded")) == [last]


def test_a_refused_head_gives_way_when_it_is_undeliverable():
    """Three sessions in which the broker did not take it."""
    world = connected()
    head, _ = world.order(lane="door")
    after, _ = world.order(lane="door")
    world.delivery(head, "refused", 1)
    for session in (2, 3):
        assert refs(world.online(session)) == [head]
        effects = world.delivery(head, "refused", session)
    assert refs(effects) == [after]


def test_a_new_session_says_the_head_of_each_lane_only():
    """Once; what waits behind it still waits."""
    world = connected()
    free, _ = world.order()
    door, _ = world.order(lane="door")
    behind, _ = world.order(lane="door")
    seat, _ = world.order(lane="seat")
    effects = world.online(2)
    assert refs(effects) == [free, door, seat]
    assert world.ledger.entries[behind]["attempts"] == []


def test_a_lane_moves_on_while_the_car_is_away():
    """The head ends offline; the next one is said in the next session."""
    world = connected()
    head, _ = world.order(lane="door", ttl_s=10)
    after, _ = world.order(lane="door")
    world.offline(1)
    assert world.due("command", head, T0 + 10_000).downlinks == []
    assert refs(world.online(2)) == [after]


def test_the_time_to_live_goes_on_while_a_command_waits():
    """One that expires in its lane is never said."""
    world = connected()
    head, _ = world.order(lane="door")
    brief, _ = world.order(lane="door", ttl_s=10)
    last, _ = world.order(lane="door")
    world.due("command", brief, T0 + 10_000)
    assert world.state_of(brief) == "expired"
    assert refs(world.outcome(head, "succeeded")) == [last]


@pytest.mark.parametrize("lane", ["default", "door"])
def test_the_entry_of_a_waiting_command_is_answered(lane):
    """201 and queued, handed out or not."""
    world = connected()
    world.order(lane=lane)
    _, effects = world.order(lane=lane)
    assert (reply(effects)["status"], reply(effects)["body"]["lane"]) == (201, lane)
    assert reply(effects)["body"]["state"] == "queued"

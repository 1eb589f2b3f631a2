"""Lanes over random logs: order of issue, one at a time, and no lane that blocks for ever."""

from hypothesis import given

from tests.twin_builders import World
from tests.twin_logs import CONTEXT, LASTING, LOGS, do, run
from twin.apply import due_of
from twin.deadlines import Deadlines
from twin.lifecycle import FINAL
from twin.wire import topics


@given(LOGS)
def test_the_car_gets_the_commands_of_a_lane_in_the_order_of_issue(log):
    """Within a session each hand-out is younger than the one before in its lane; in a named lane all
    that is older has ended by then."""
    world = World(CONTEXT)
    issued: list[str] = []
    last: dict[tuple[str, int], int] = {}
    for step in log:
        effects = do(world, step)
        for change in effects.changes if effects else ():
            if change["kind"] == "command" and "from" not in change["what"]:
                ident = change["what"]["id"]
                if ident not in issued:
                    issued.append(ident)
        for downlink in effects.downlinks if effects else ():
            if downlink["kind"] != "command":
                continue
            lane, ident = downlink["payload"]["lane"], downlink["ref"]
            number = issued.index(ident)
            assert last.get((lane, downlink["session"]), -1) < number
            last[lane, downlink["session"]] = number
            if lane != "default":
                older = [world.ledger.entries.get(one) for one in issued[:number]]
                assert all(c["state"] in FINAL for c in older if c and c["lane"] == lane)


@given(LOGS)
def test_an_online_car_has_the_head_of_each_lane(log):
    """What is open, unexpired and behind nothing has been handed out in the session."""
    world = World(CONTEXT)
    for step in log:
        do(world, step)
        if world.state is None or world.twin["presence"]["state"] != "online":
            continue
        session, heads = world.twin["presence"]["session"], set()
        for ident in world.twin["commands"]["open"]:
            command = world.ledger.entries[ident]
            first = command["lane"] == "default" or command["lane"] not in heads
            heads.add(command["lane"])
            if command["expires_at"] > world.now:
                assert (session in command["attempts"]) >= first


@given(LASTING)
def test_time_alone_frees_every_lane(log):
    """Whatever is stuck ends by its deadlines, and with it all that waited."""
    world, _ = run([("online", 1), *log])
    heap = Deadlines()
    heap.add(world.deadlines)
    for round_ in range(200):
        if not len(heap):
            break
        world.now += int(10 * 1.1**round_)
        for record in heap.due(
            world.now,
            world.now,
            lambda _, of, ref: due_of(world.twin, world.ledger, of, ref, CONTEXT),
        ):
            heap.add(world.put(topics.REQUESTS, record).deadlines)
    assert world.twin["commands"]["open"] == []

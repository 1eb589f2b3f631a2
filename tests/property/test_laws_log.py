"""Laws of the whole fold over random logs: 2 (once), 6 (deadlines), 7 (revision), commands.

A log is a list of small steps on a `World`: cars, brokers, scorer, people and time, with few sessions,
few commands and few values, so that repeats, races and refusals are common.
"""

import copy
import dataclasses
from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import CAR, World, telemetry
from twin import lifecycle
from twin.apply import Context, Limits, deadlines_of
from twin.deadlines import Deadlines
from twin.effects import Effects
from twin.lifecycle import FINAL
from twin.patch import difference
from twin.policy import load_policy
from twin.wire import topics
from twin.wire.ids import command_id

CONTEXT = Context(
    policy=load_policy(None),
    limits=Limits(open_commands=3, attributes=2),
    stale_after_ms=40,
    overdue_after_ms=30,
    desired_ttl_ms=90,
)
FEW = st.integers(0, 3)
SESSIONS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 50])),
    st.tuples(st.just("telemetry"), SESSIONS, FEW, FEW),
    st.tuples(st.sampled_from(["online", "offline"]), SESSIONS),
    st.tuples(st.just("reported"), SESSIONS, FEW, FEW, FEW),
    st.tuples(st.just("desire"), st.sampled_from(["patch", "put"]), st.sampled_from("ab"), FEW),
    st.tuples(st.just("order"), st.sampled_from([0.02, 0.1, 0, 1]), st.sampled_from([None, "k"])),
    st.tuples(st.just("cancel"), FEW),
    st.tuples(
        st.just("outcome"),
        FEW,
        st.sampled_from(["received", "accepted", "rejected", "running", "succeeded", "failed"]),
    ),
    st.tuples(st.just("delivery"), FEW, st.sampled_from(["sent", "refused"]), SESSIONS),
    st.tuples(st.just("told"), FEW),
    st.tuples(st.just("score"), st.sampled_from(["normal", "alarm", "warning"]), FEW),
    st.tuples(st.just("due"), st.sampled_from(["command", "presence", "desired"]), FEW, FEW),
    st.tuples(st.just("attributes"), st.sampled_from("abcd")),
    st.just(("delete",)),
)
LOGS = st.lists(STEPS, min_size=1, max_size=25)
LASTING = st.lists(STEPS.filter(lambda step: step[0] != "delete"), min_size=1, max_size=25)


def ident(world: World, index: int) -> str:
    """A command the world has, or one it never had."""
    known = sorted(world.ledger.entries)
    return known[index % len(known)] if known else command_id(CAR, 0, "none")


def do(world: World, step: tuple) -> Effects | None:
    """Carry out one step; None for waiting."""
    verb, *args = step
    if verb == "wait":
        world.now += args[0]
        return None
    if verb == "telemetry":
        session, age, sequence = args
        return world.put(
            topics.TELEMETRY, telemetry(world.now - age, session, sequence, speed=float(age))
        )
    if verb in ("online", "offline"):
        return getattr(world, verb)(args[0], attributes={f"s{args[0]}": "x"})
    if verb == "reported":
        session, sequence, value, version = args
        return world.reported(session, sequence, {"a": value}, desired_version=version)
    if verb == "desire":
        operation, name, value = args
        return world.desire({name: value or None}, op=operation)
    if verb == "order":
        ttl_s, key = args
        keyed = {"idempotency_key": key, "body_hash": str(ttl_s)} if key else {}
        return world.order(ttl_s=ttl_s, **keyed)[1]
    if verb in ("cancel", "outcome", "delivery"):
        return getattr(world, verb)(ident(world, args[0]), *args[1:])
    if verb == "told":
        return world.delivery(str(args[0]), kind="desired")
    if verb == "score":
        return world.score(args[0], args[1], event_time=world.now)
    if verb == "due":
        of, index, early = args
        refs = {"command": ident(world, index), "presence": str(index), "desired": str(index)}
        return world.due(of, refs[of], world.now - early)
    if verb == "attributes":
        return world.request("attributes", {"value": {args[0]: "x", "fleet": "f"}})
    return world.request("delete", {})


def run(log: list[tuple]) -> tuple[World, list[Effects]]:
    world = World(CONTEXT)
    return world, [effects for step in log if (effects := do(world, step)) is not None]


def document(world: World) -> bytes | None:
    return None if world.state is None else orjson.dumps(world.state)


@given(LOGS)
def test_state_and_outputs_are_a_function_of_the_log(log):
    """The same records give the same twin, ledger, changes, downlinks, replies and deadlines."""
    first, effects = run(log)
    second = World(CONTEXT)
    again = [second.feed(*record) for record in first.log]
    assert document(second) == document(first)
    assert second.ledger.entries == first.ledger.entries
    assert [comparable(one) for one in again] == [comparable(one) for one in effects]


def comparable(effects: Effects) -> Effects:
    """Errors are compared by what they say."""
    rejected = effects.rejected and (effects.rejected.reason, effects.rejected.detail)
    return dataclasses.replace(effects, rejected=rejected)


@given(LASTING, st.data())
def test_any_part_of_the_log_again_changes_nothing(log, data):
    """Law 2: counters included; no output of any kind comes a second time."""
    world, _ = run([("online", 1), *log])
    before = document(world), copy.deepcopy(world.ledger.entries)
    prefix = world.log[: data.draw(st.integers(0, len(world.log)))]
    for record in data.draw(st.one_of(st.just(prefix), st.permutations(world.log))):
        assert world.feed(*record) == Effects(repeated=True)
    assert (document(world), world.ledger.entries) == before


BOOKKEEPING = ("applied", "revision", "updated_at")


def content(state):
    return {name: part for name, part in (state or {}).items() if name not in BOOKKEEPING}


@given(LOGS)
def test_the_revision_grows_by_one_with_each_record_that_changes_something(log):
    """Law 7: exactly then; and a record that tells, sends or writes has changed something."""
    world = World(CONTEXT)
    for step in log:
        before = copy.deepcopy(world.state)
        effects = do(world, step)
        if effects is None:
            continue
        after, deleted = world.state, "deleted" in [c["kind"] for c in effects.changes]
        told = bool(effects.changes or effects.ledger or effects.downlinks)
        assert not told or effects.changed
        assert not (effects.changed and effects.outdated)
        if after is None:
            assert effects.changed is deleted
            continue
        grown = after["revision"] - (before["revision"] if before else 0)
        assert grown == effects.changed
        assert (content(before) != content(after) or bool(effects.ledger)) is effects.changed
        numbers = [change["id"] for change in effects.changes]
        assert numbers == [f"{CAR}:{after['revision']}:{n}" for n in range(len(numbers))]


@given(LOGS)
def test_commands_move_only_along_the_table_and_ends_are_final(log):
    """Every step of every history is in the table; a final state never changes; the twin lists
    exactly the open commands, never more than the limit."""
    world = World(CONTEXT)
    ended: dict[str, str] = {}
    for step in log:
        effects = do(world, step)
        if effects is not None and effects.removed:
            ended.clear()
        entries = world.ledger.entries
        for command in entries.values():
            states = [transition["state"] for transition in command["history"]]
            assert states[-1] == command["state"]
            for before, after in pairwise(states):
                assert after in lifecycle.TRANSITIONS[before].values()
            assert ended.get(command["id"], command["state"]) == command["state"]
            if command["state"] in FINAL:
                ended[command["id"]] = command["state"]
        if world.state is not None:
            opened = world.twin["commands"]["open"]
            assert sorted(opened) == sorted(
                c["id"] for c in entries.values() if c["state"] not in FINAL
            )
            assert len(opened) <= CONTEXT.limits.open_commands


@given(LOGS)
def test_a_car_is_spoken_to_only_while_it_is_online(log):
    """Downlinks carry the session and shard of the presence, and no command past its expiry."""
    world = World(CONTEXT)
    said: set[tuple[str, str, int]] = set()
    ids: set[str] = set()
    for step in log:
        effects = do(world, step)
        if effects is not None and effects.removed:
            said.clear()
        for downlink in effects.downlinks if effects else ():
            presence = world.twin["presence"]
            assert presence["state"] == "online"
            assert (downlink["session"], downlink["shard"]) == (
                presence["session"],
                presence["shard"],
            )
            assert downlink.get("expires_at", world.now + 1) > world.now
            if downlink["kind"] != "desired":
                once = (downlink["kind"], downlink["ref"], downlink["session"])
                assert once not in said
                said.add(once)
        if world.state is None:
            ids.clear()  # A new twin begins again at revision 1.
        new = [d["id"] for d in effects.downlinks] if effects else []
        assert ids.isdisjoint(new)
        ids.update(new)


@given(LOGS)
def test_delta_and_statuses_follow_desired_and_config(log):
    """delta is always the computed difference; acked exactly when nothing of it differs."""
    world = World(CONTEXT)
    for step in log:
        do(world, step)
        if world.state is None:
            continue
        desired, delta = world.twin["desired"], world.twin["delta"]
        assert delta == difference(desired["properties"], world.twin["config"])
        acked = {n for n, status in desired["status"].items() if status["state"] == "acked"}
        assert acked == set(desired["properties"]) - set(delta)


@given(LASTING, st.data())
def test_an_outdated_deadline_does_nothing(log, data):
    """Law 6: before its time, or of something that is over, a deadline leaves twin and ledger."""
    world, _ = run([("online", 1), *log])
    current = {
        (d.of, d.ref): d.due
        for d in reversed(deadlines_of(world.twin, world.ledger.of(CAR), CONTEXT))
    }
    refs = [("command", command) for command in world.ledger.entries]
    refs += [("presence", str(n)) for n in range(5)] + [("desired", str(n)) for n in range(5)]
    of, ref = data.draw(st.sampled_from(refs))
    if (of, ref) in current:
        due = current[of, ref] - data.draw(st.integers(1, 200))
    else:
        due = world.now + data.draw(st.integers(-200, 200))
    before = content(copy.deepcopy(world.state)), copy.deepcopy(world.ledger.entries)
    effects = world.due(of, ref, due)
    assert effects.outdated
    assert (content(world.state), world.ledger.entries) == before


@given(LASTING, st.booleans())
def test_time_alone_brings_everything_to_its_end(log, recovered):
    """With the shell's heap, kept or rebuilt after a recovery: the deadlines that were asked for suffice
    to end every command, find a silent car stale and expire what is not confirmed."""
    world, effects = run([("online", 1), *log])
    heap = Deadlines()
    if recovered:
        heap.add(deadlines_of(world.twin, world.ledger.of(CAR), CONTEXT))
    else:
        for one in effects:
            heap.add(one.deadlines)
    for round_ in range(200):
        if not len(heap):
            break
        world.now += int(10 * 1.1**round_)
        for record in heap.due(world.now):
            heap.add(world.put(topics.REQUESTS, record).deadlines)
    assert len(heap) == 0
    assert {command["state"] for command in world.ledger.entries.values()} <= FINAL
    assert world.twin["presence"]["state"] != "online"
    states = {status["state"] for status in world.twin["desired"]["status"].values()}
    assert states <= {"acked", "diverged", "expired"}

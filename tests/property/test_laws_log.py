"""Laws of the whole fold over random logs: 2 (once), 6 (deadlines), 7 (revision), commands."""

import copy
import dataclasses
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import CAR, World
from tests.twin_logs import CONTEXT, LASTING, LOGS, do, document, run
from twin import lifecycle
from twin.apply import due_of
from twin.deadlines import Deadlines
from twin.effects import Effects
from twin.lifecycle import FINAL
from twin.patch import difference
from twin.wire import topics


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


BOOKKEEPING = ("applied", "revision", "updated_at", "counts", "causes", "asked")


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
        differs = content(before) != content(after)
        assert (differs or bool(effects.ledger or effects.changes)) is effects.changed
        numbers = [change["id"] for change in effects.changes]
        topic, _, place, _ = world.log[-1]
        source = f"{CAR}:{after['created_at']}:{topic}/{place['partition']}/{place['offset']}"
        assert numbers == [f"{source}:{n}" for n in range(len(numbers))]


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
        before = copy.deepcopy(world.state)
        effects = do(world, step)
        if effects is not None and effects.removed:
            said.clear()
        for downlink in effects.downlinks if effects else ():
            if downlink["kind"] == "forget":
                continue  # for the broker
            # A deleted twin withdraws what the car may have.
            presence = (world.state or before)["presence"]
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
        new = [d["id"] for d in effects.downlinks] if effects else []
        assert ids.isdisjoint(new)
        ids.update(new)


def ids_of(effects):
    """Of all that is told, and of the commands that rules gave."""
    decisions = [change["what"] for change in effects.changes if change["kind"] == "decision"]
    given = [what["command"] for what in decisions if what["verdict"] == "command"]
    return [output["id"] for output in (*effects.changes, *effects.downlinks)] + given


@given(st.lists(st.one_of(LOGS, st.just([("delete",), ("online", 1)])), max_size=6))
def test_no_id_comes_twice_and_whoever_applies_the_log_again_makes_the_same(logs):
    """Twins that are deleted and made again within a millisecond included (laws 3 and 5)."""
    steps = [step for log in logs for step in log if step[0] != "wait"]
    world, ids = World(CONTEXT), []
    for step in steps:
        effects = do(world, step)
        ids += ids_of(effects) if effects is not None else []
    assert len(ids) == len(set(ids))
    other, again = World(CONTEXT), []
    for record in world.log:
        again += ids_of(other.feed(*record))
    assert again == ids


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
    current = {(d.of, d.ref): d.due for d in reversed(world.deadlines)}
    refs = [("command", command) for command in world.ledger.entries]
    refs += [("presence", str(n)) for n in range(5)] + [("desired", str(n)) for n in range(5)]
    refs.append(("decision", "ask"))
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
        heap.add(world.deadlines)
    else:
        for one in effects:
            heap.add(one.deadlines)
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
    assert len(heap) == 0
    assert {command["state"] for command in world.ledger.entries.values()} <= FINAL
    assert world.twin["presence"]["state"] != "online"
    assert "told" not in world.twin["presence"]
    verdicts = {one["verdict"] for one in world.twin.get("decisions", {}).values()}
    assert "awaiting_approval" not in verdicts
    states = {status["state"] for status in world.twin["desired"]["status"].values()}
    assert states <= {"acked", "diverged", "expired"}


@given(LASTING)
def test_a_deadline_is_due_when_the_rebuilt_heap_says_so(log):
    """One at a time or all at once: the same times, and None for what is not awaited."""
    world, _ = run([("online", 1), *log])
    rebuilt = {(d.of, d.ref): d.due for d in world.deadlines}
    refs = [("command", command) for command in world.ledger.entries]
    refs += [("presence", str(n)) for n in range(6)] + [("desired", str(n)) for n in range(30)]
    for of, ref in [*refs, ("decision", "ask"), ("decision", "limit-power-on-alarm")]:
        assert due_of(world.twin, world.ledger, of, ref, CONTEXT) == rebuilt.pop((of, ref), None)
    assert rebuilt == {}


@given(LOGS)
def test_what_is_told_of_presence_is_a_chain_that_ends_at_what_is_shown(log):
    """Each change begins with the state that was told before and names another; what is shown and not
    told yet is a young offline."""
    world, told = World(CONTEXT), "unknown"
    for step in log:
        effects = do(world, step)
        for change in effects.changes if effects else ():
            if change["kind"] == "presence":
                assert change["what"]["from"] == told != change["what"]["state"]
                told = change["what"]["state"]
            elif change["kind"] == "deleted":
                told = "unknown"
        if world.state is not None:
            presence = world.twin["presence"]
            assert presence.get("told", presence["state"]) == told
            assert "told" not in presence or presence["state"] == "offline"


@given(LOGS)
def test_a_key_is_decided_once(log):
    """A request under a known id changes nothing and has the hash and status of the first one."""
    world = World(CONTEXT)
    decided: dict[str, tuple[int, str]] = {}
    for step in log:
        effects = do(world, step)
        for reply in effects.replies if effects else ():
            ident, first = reply["request_id"], decided.get(reply["request_id"])
            if first is not None and world.state is not None:
                assert (reply["status"], reply["body_hash"]) == first
                assert not effects.changed
            elif ident == "k" and reply["status"] < 400 and effects.changed:
                decided[ident] = reply["status"], reply["body_hash"]
        if world.state is None:
            decided.clear()

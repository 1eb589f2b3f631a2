"""Commands: the table of transitions, requests and their refusals, sessions, deadlines."""

from typing import get_args

import orjson
import pytest

from tests.twin_builders import T0, World, kinds, reply
from twin import lifecycle
from twin.apply import Context, Limits
from twin.effects import Effects
from twin.fields import check_entry
from twin.ledger import REASON_LENGTH
from twin.lifecycle import FINAL, TRANSITIONS, Event
from twin.step import Step
from twin.wire.errors import Invalid
from twin.wire.ids import command_id
from twin.wire.records import CommandState, Position, Transition

HOUR = 3_600_000
OVERDUE = Context().overdue_after_ms


def connected(context=None):
    world = World(context)
    world.online(1)
    return world


def ordered(**more):
    """A connected car and a command on its way."""
    world = connected()
    ident, _ = world.order(**more)
    return world, ident


# --- the table ------------------------------------------------------------------------------------


def test_the_table_covers_every_state_and_ends_in_the_final_ones():
    """No state without a row, no way out of a final state, a way to each state but the first."""
    assert set(TRANSITIONS) == set(get_args(CommandState))
    assert all(not TRANSITIONS[state] for state in FINAL)
    reached = {after for leads in TRANSITIONS.values() for after in leads.values()}
    assert reached == set(get_args(CommandState)) - {"queued"}
    assert {event for leads in TRANSITIONS.values() for event in leads} == set(get_args(Event))


def test_the_table_is_rendered_as_documentation():
    """One row per state, with each event that leads out of it."""
    rows = lifecycle.render().splitlines()
    assert len(rows) == 2 + len(get_args(CommandState))
    assert "| `running` |" in lifecycle.render()
    running = next(row for row in rows if row.startswith("| `running`"))
    assert "succeeded -> succeeded" in running
    assert "cancel" not in running
    overdue = next(row for row in rows if row.startswith("| `overdue`"))
    assert "cancel -> cancelled (not after running)" in overdue
    assert rows[-1].endswith("| final |")


# --- requests -------------------------------------------------------------------------------------


def test_a_command_for_an_online_car_goes_out_at_once():
    """201 with the entry; the payload holds all that the car needs; queued until the broker has it."""
    world = connected()
    ident, effects = world.order("limit_power", args={"factor": 0.5}, lane="safety", ttl_s=60)
    answer = reply(effects)
    assert answer["status"] == 201
    assert (answer["body"]["id"], answer["body"]["state"]) == (ident, "queued")
    (downlink,) = effects.downlinks
    assert (downlink["kind"], downlink["ref"], downlink["session"]) == ("command", ident, 1)
    assert downlink["payload"] == {
        "id": ident,
        "name": "limit_power",
        "args": {"factor": 0.5},
        "lane": "safety",
        "issued_at": T0,
        "expires_at": T0 + 60_000,
    }
    assert downlink["expires_at"] == T0 + 60_000
    assert world.twin["commands"]["open"] == [ident]
    assert world.twin["commands"]["last"] == {"id": ident, "name": "limit_power", "state": "queued"}
    assert kinds(effects) == ["command"]


def test_a_command_lives_an_hour_unless_told_otherwise():
    """TTL default 1 h."""
    world, ident = ordered()
    assert world.ledger.entries[ident]["expires_at"] == T0 + HOUR


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"ttl_s": 0}, 400, "bad_ttl", id="no time to live"),
        pytest.param({"ttl_s": 604_801}, 400, "bad_ttl", id="more than seven days"),
        pytest.param({"ttl_s": "60"}, 400, "bad_ttl", id="time to live as text"),
        pytest.param({"ttl_s": True}, 400, "bad_ttl", id="time to live as truth value"),
        pytest.param({"name": "Ping!"}, 400, "bad_command", id="bad name"),
        pytest.param({"name": None}, 400, "bad_command", id="no name"),
        pytest.param({"lane": 7}, 400, "bad_command", id="bad lane"),
        pytest.param({"args": [1]}, 400, "bad_command", id="arguments no object"),
        pytest.param({"id": "car-1.short"}, 400, "bad_command", id="no command id"),
        pytest.param({"id": 5}, 400, "bad_command", id="command id no text"),
        pytest.param({"args": {"k" * 129: 1}}, 400, "key_too_long", id="long key"),
        pytest.param({"args": {"a": "x" * 33_000}}, 413, "document_too_large", id="long arguments"),
        pytest.param({"args": {"a": [[[[[[[[1]]]]]]]]}}, 400, "too_deep", id="deep arguments"),
    ],
)
def test_a_command_that_cannot_be_accepted_is_refused(body, status, code):
    """Each fault has its code and a sentence; nothing is opened."""
    world = connected()
    good = {"id": command_id("car-1", T0, "x"), "name": "ping"}
    effects = world.request("command", {**good, **body})
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (status, code)
    assert answer["detail"]
    assert not effects.changed
    assert not world.ledger.entries


def test_a_command_id_of_another_vehicle_is_refused():
    """The id names the vehicle it belongs to."""
    world = connected()
    other = command_id("car-2", T0, "x")
    answer = reply(world.request("command", {"id": other, "name": "ping"}))
    assert (answer["status"], answer["code"]) == (400, "bad_command")


def test_the_same_key_and_body_is_the_same_command():
    """201 with the first command as it is now, whatever id the repetition carries."""
    world = connected()
    key = {"idempotency_key": "k", "body_hash": "h"}
    ident, _ = world.order(**key)
    world.outcome(ident, "succeeded")
    again, effects = world.order(**key)
    answer = reply(effects)
    assert again != ident
    assert (answer["status"], answer["body"]["id"]) == (201, ident)
    assert answer["body"]["state"] == "succeeded"
    assert len(world.ledger.entries) == 1
    assert not effects.changed


def test_the_same_key_with_another_body_is_a_conflict():
    """409 idempotency_conflict with the command that has the key."""
    world = connected()
    ident, _ = world.order(idempotency_key="k", body_hash="h")
    _, effects = world.order(idempotency_key="k", body_hash="other")
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (409, "idempotency_conflict")
    assert answer["body"] == {"id": ident}


def test_a_request_written_twice_makes_one_command():
    """The same command id at a later offset is the same command, with or without a key."""
    world = connected()
    body = {"id": command_id("car-1", T0, "x"), "name": "ping"}
    for _ in range(2):
        answer = reply(world.request("command", body))
        assert (answer["status"], answer["body"]["id"]) == (201, body["id"])
    assert len(world.ledger.entries) == 1


def test_commands_of_a_day_are_bounded():
    """Ended ones count for 24 h: a twin is deleted in one record with all of them."""
    world = World(Context(limits=Limits(day_commands=2)))
    world.online(1)
    for _ in range(2):
        command, _ = world.order()
        world.outcome(command, "succeeded")
    _, effects = world.order()
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (429, "too_many_commands")
    assert effects.ledger == []


def test_open_commands_are_bounded():
    """The one over the limit gets 429, and there is room again when one ends."""
    world = World(Context(limits=Limits(open_commands=2)))
    world.online(1)
    first, _ = world.order()
    world.order()
    _, effects = world.order()
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (429, "too_many_open_commands")
    world.outcome(first, "succeeded")
    _, effects = world.order()
    assert reply(effects)["status"] == 201


# --- what the broker, the car and time say --------------------------------------------------------


def test_a_command_goes_its_way_to_the_end():
    """sent by the broker, delivered only by the car's word, then on to succeeded; each is told."""
    world, ident = ordered()
    states = []
    steps = [
        lambda: world.delivery(ident),
        lambda: world.outcome(ident, "received"),
        lambda: world.outcome(ident, "accepted"),
        lambda: world.outcome(ident, "running", progress=0.5),
        lambda: world.outcome(ident, "succeeded", progress=1.0),
    ]
    for step in steps:
        world.now += 10
        effects = step()
        assert kinds(effects) == ["command"]
        states.append(world.state_of(ident))
    assert states == ["sent", "delivered", "accepted", "running", "succeeded"]
    entry = world.ledger.entries[ident]
    assert [t["state"] for t in entry["history"]] == ["queued", *states]
    assert [t["at"] for t in entry["history"]] == [T0 + 10 * n for n in range(6)]
    assert entry["progress"] == 1.0
    assert world.twin["commands"] == {
        "open": [],
        "last": {"id": ident, "name": "ping", "state": "succeeded"},
    }


@pytest.mark.parametrize("state", ["succeeded", "failed", "rejected"])
def test_the_cars_last_word_ends_a_command_from_any_open_state(state):
    """Even before the delivery record, with the car's reason."""
    world, ident = ordered()
    world.outcome(ident, state, reason="because")
    assert world.state_of(ident) == state
    assert world.ledger.entries[ident]["history"][-1]["reason"] == "because"
    assert world.delivery(ident).outdated
    assert world.state_of(ident) == state


def test_overtaken_words_do_not_turn_a_command_back():
    """After running, accepted and received and sent say nothing new."""
    world, ident = ordered()
    world.outcome(ident, "running")
    before = world.twin["revision"]
    for effects in (
        world.delivery(ident),
        world.outcome(ident, "received"),
        world.outcome(ident, "accepted"),
    ):
        assert effects.outdated
    assert world.state_of(ident) == "running"
    assert world.twin["revision"] == before


def test_progress_is_told_and_does_not_go_back():
    """More progress is a change; the same again is only a sign of life."""
    world, ident = ordered()
    world.outcome(ident, "running", progress=0.2)
    assert kinds(world.outcome(ident, "running", progress=0.6)) == ["command"]
    world.now += 7
    assert kinds(world.outcome(ident, "running", progress=0.4)) == []
    entry = world.ledger.entries[ident]
    assert (entry["progress"], entry["updated_at"]) == (0.6, T0 + 7)


def test_an_outcome_of_an_unknown_command_is_rejected():
    """With and without a twin."""
    world = World()
    unknown = command_id("car-1", T0, "nobody asked")
    for _ in range(2):
        effects = world.outcome(unknown, "succeeded")
        assert effects.rejected is not None
        assert effects.rejected.reason == "unknown_command"
        assert ("not any more" in effects.rejected.detail) is (world.state is not None)
        assert not effects.changed
        world.telemetry(speed=1.0)


def test_a_delivery_of_an_unknown_command_is_outdated():
    """Deliveries of a deleted twin's commands, or of nonsense, change nothing."""
    world = connected()
    for ref in (command_id("car-1", T0, "gone"), command_id("car-2", T0, "x"), "nonsense"):
        assert world.delivery(ref).outdated


def test_silence_after_sending_is_overdue_and_a_late_word_wins():
    """Not final: still open, and the car's success counts."""
    world, ident = ordered()
    effects = world.delivery(ident)
    assert [(d.of, d.ref, d.due) for d in effects.deadlines] == [("command", ident, T0 + OVERDUE)]
    world.due("command", ident, T0 + OVERDUE)
    assert world.state_of(ident) == "overdue"
    assert world.twin["commands"]["open"] == [ident]
    world.outcome(ident, "succeeded")
    assert world.state_of(ident) == "succeeded"


def test_an_overdue_command_does_not_fall_behind_what_the_car_had_said():
    """After running and overdue, a late `received` is nothing new; running is."""
    world, ident = ordered()
    world.outcome(ident, "running")
    world.due("command", ident, T0 + OVERDUE)
    assert world.state_of(ident) == "overdue"
    assert world.outcome(ident, "received").outdated
    assert world.outcome(ident, "accepted").outdated
    world.outcome(ident, "running")
    assert world.state_of(ident) == "running"


def test_an_overdue_command_that_was_only_sent_may_be_delivered_late():
    """overdue -> delivered, and the clock of silence begins again."""
    world, ident = ordered()
    world.delivery(ident)
    world.due("command", ident, T0 + OVERDUE)
    world.now += 5
    effects = world.outcome(ident, "received")
    assert world.state_of(ident) == "delivered"
    assert [d.due for d in effects.deadlines] == [world.now + OVERDUE]


def test_a_sign_of_life_puts_overdue_off():
    """The deadline that came too early does nothing and is armed again."""
    world, ident = ordered()
    world.outcome(ident, "running", progress=0.1)
    world.now += 1000
    world.outcome(ident, "running", progress=0.2)
    before = world.twin["revision"]
    effects = world.due("command", ident, T0 + OVERDUE)
    assert effects.outdated
    assert world.twin["revision"] == before
    assert [d.due for d in effects.deadlines] == [T0 + 1000 + OVERDUE]


@pytest.mark.parametrize("said", [None, "sent", "received", "accepted"])
def test_what_the_car_does_not_run_in_time_expires(said):
    """Queued, sent, delivered and accepted commands are too old to run at their expiry."""
    world, ident = ordered(ttl_s=30)
    if said == "sent":
        world.delivery(ident)
    elif said:
        world.outcome(ident, said)
    assert world.due("command", ident, T0 + 29_999).outdated
    world.due("command", ident, T0 + 30_000)
    assert world.state_of(ident) == "expired"
    assert world.twin["commands"]["open"] == []


def test_a_running_command_does_not_expire_but_goes_overdue_and_then_ends():
    """The car is at it; when it is silent it is doubted, and one more silence ends it."""
    world, ident = ordered(ttl_s=30)
    world.outcome(ident, "running")
    assert world.due("command", ident, T0 + 30_000).outdated
    assert world.state_of(ident) == "running"
    effects = world.due("command", ident, T0 + OVERDUE)
    assert world.state_of(ident) == "overdue"
    (deadline,) = effects.deadlines
    assert deadline.due == T0 + 2 * OVERDUE
    world.due("command", ident, deadline.due)
    assert world.state_of(ident) == "expired"


def test_what_a_car_does_after_the_end_is_told_and_changes_no_state():
    """late_outcome, once per new word; the ledger keeps it beside the state."""
    world, ident = ordered(ttl_s=30)
    world.due("command", ident, T0 + 30_000)
    effects = world.outcome(ident, "running")
    assert kinds(effects) == ["late_outcome"]
    effects = world.outcome(ident, "succeeded", reason="after all")
    assert effects.changes[0]["what"]["outcome"] == "succeeded"
    assert world.outcome(ident, "succeeded").outdated
    assert world.outcome(ident, "running").outdated
    entry = world.ledger.entries[ident]
    assert (entry["state"], entry["late"]["state"]) == ("expired", "succeeded")


def test_nothing_follows_on_the_cars_own_last_word():
    """After succeeded, failed is neither a state nor a late outcome."""
    world, ident = ordered()
    world.outcome(ident, "succeeded")
    effects = world.outcome(ident, "failed")
    assert effects.outdated
    assert not effects.changed


def test_history_is_bounded_and_keeps_its_beginning():
    """First and latest transitions stay."""
    world, ident = ordered(ttl_s=600_000)
    world.outcome(ident, "running")
    for _ in range(20):
        world.due("command", ident, world.now + OVERDUE)
        world.outcome(ident, "running")
    history = world.ledger.entries[ident]["history"]
    assert len(history) == 20
    assert history[0] == Transition(state="queued", at=T0)
    assert history[-1]["state"] == "running"


# --- sessions -------------------------------------------------------------------------------------


def test_commands_for_an_offline_car_wait_for_its_next_session():
    """Queued, and said in the order they were asked for when the car is born again."""
    world = connected()
    world.offline(1)
    first, effects = world.order()
    assert effects.downlinks == []
    second, _ = world.order()
    effects = world.online(2)
    assert [d["ref"] for d in effects.downlinks] == [first, second]
    assert {d["session"] for d in effects.downlinks} == {2}


def test_a_new_session_says_every_open_command_again_under_its_id():
    """Also what was running; not what has ended or is past its expiry."""
    world = connected()
    running, _ = world.order()
    world.outcome(running, "running")
    ended, _ = world.order()
    world.outcome(ended, "succeeded")
    brief, _ = world.order(ttl_s=1)
    world.now += 2000
    effects = world.online(2)
    assert [d["ref"] for d in effects.downlinks] == [running]
    assert world.state_of(running) == "running"
    assert world.ledger.entries[running]["attempts"] == [1, 2]
    assert world.state_of(brief) == "queued"


def test_downlink_ids_differ_per_session():
    """A consumer that drops repeats still passes on the same command in a new session."""
    world, _ = ordered()
    ids = [world.online(n).downlinks[0]["id"] for n in (2, 3)]
    assert len(set(ids)) == 2


def refusal_of(effects):
    """What a change tells of a delivery that the broker refused."""
    (change,) = effects.changes
    assert change["kind"] == "command"
    return change["what"]


def test_a_refused_delivery_is_told_with_its_reason_and_kept():
    """State and last change stay; the entry has the latest refusal, and the record is its cause."""
    world, ident = ordered()
    before = world.ledger.entries[ident]
    world.now += 5
    what = refusal_of(world.delivery(ident, "refused", 1, reason="not_authorized"))
    refused = {"kind": "command", "session": 1, "at": world.now, "reason": "not_authorized"}
    assert (what["id"], what["from"], what["state"]) == (ident, "queued", "queued")
    assert what["refused"] == refused
    entry = world.ledger.entries[ident]
    assert entry["refused"] == refused
    assert {n: entry[n] for n in ("state", "history", "updated_at", "attempts")} == {
        n: before[n] for n in ("state", "history", "updated_at", "attempts")
    }
    check_entry(f"car-1/{ident}", orjson.loads(orjson.dumps(entry)))


def test_a_refusal_without_a_reason_has_one_and_a_long_one_is_cut():
    """Bounded, and never empty."""
    world, ident = ordered()
    assert refusal_of(world.delivery(ident, "refused", 1))["refused"]["reason"]
    what = refusal_of(world.delivery(ident, "refused", 2, reason="x" * 9999))
    assert len(what["refused"]["reason"]) == REASON_LENGTH


@pytest.mark.parametrize("refused", [5, {}, {"kind": "command", "session": "1", "at": 1}])
def test_an_entry_with_a_strange_refusal_is_not_whole(refused):
    """What no owner wrote is passed over when a partition is restored."""
    world, ident = ordered()
    with pytest.raises(Invalid, match="refused"):
        check_entry(f"car-1/{ident}", {**world.ledger.entries[ident], "refused": refused})


def test_refused_in_three_sessions_is_undeliverable():
    """Counted per session, not per refusal; with the broker's reason."""
    world, ident = ordered()
    world.delivery(ident, "refused", 1, reason="unknown shard")
    assert world.delivery(ident, "refused", 1).outdated
    world.online(2)
    world.delivery(ident, "refused", 2, reason="unknown shard")
    assert world.state_of(ident) == "queued"
    assert world.delivery(ident, "refused", 1, reason="said again").outdated
    world.online(3)
    world.delivery(ident, "refused", 3, reason="unknown shard")
    entry = world.ledger.entries[ident]
    assert entry["state"] == "undeliverable"
    assert entry["history"][-1]["reason"] == "unknown shard"
    assert world.twin["commands"]["open"] == []


def test_a_refusal_does_not_count_once_the_car_may_have_it():
    """What was sent in some session is never undeliverable; that the next refused it is told, once."""
    world, ident = ordered()
    world.delivery(ident, "sent", 1)
    for session in (2, 3, 4):
        world.online(session)
        what = refusal_of(world.delivery(ident, "refused", session, reason="quota_exceeded"))
        assert (what["state"], what["refused"]["session"]) == ("sent", session)
        assert world.delivery(ident, "refused", session, reason="quota_exceeded").outdated
    assert world.state_of(ident) == "sent"
    assert "refusals" not in world.ledger.entries[ident]


def test_a_refused_cancel_is_told():
    """The car has not heard of it yet; of what was not cancelled, or ended otherwise, it says nothing."""
    world, ident = ordered()
    world.delivery(ident)
    assert world.delivery(ident, "refused", 1, kind="cancel").outdated
    world.cancel(ident)
    what = refusal_of(world.delivery(ident, "refused", 1, kind="cancel", reason="no_subscriber"))
    assert (what["state"], what["refused"]["kind"]) == ("cancelled", "cancel")
    assert world.delivery(ident, "refused", 1, kind="cancel", reason="no_subscriber").outdated
    assert world.delivery(ident, "refused", 2, kind="command").outdated
    assert [d["kind"] for d in world.online(2).downlinks] == ["cancel"]


# --- cancel ---------------------------------------------------------------------------------------


def test_a_command_that_was_never_said_is_cancelled_in_silence():
    """200; nothing goes to the car."""
    world = World()
    world.telemetry(speed=1.0)
    ident, _ = world.order()
    effects = world.cancel(ident)
    assert (reply(effects)["status"], reply(effects)["body"]["state"]) == (200, "cancelled")
    assert effects.downlinks == []
    assert "cancels" not in world.twin["commands"]


@pytest.mark.parametrize("said", [None, "received", "accepted"])
def test_a_command_the_car_may_have_is_cancelled_and_the_car_is_told(said):
    """The downlink says cancel; what the car then reports is a late outcome."""
    world, ident = ordered()
    world.delivery(ident)
    if said:
        world.outcome(ident, said)
    effects = world.cancel(ident)
    (downlink,) = effects.downlinks
    assert (downlink["kind"], downlink["ref"]) == ("cancel", ident)
    assert downlink["payload"] == {"id": ident, "cancel": True}
    assert world.state_of(ident) == "cancelled"
    assert world.delivery(ident, kind="cancel").outdated
    assert kinds(world.outcome(ident, "failed", reason="cancelled")) == ["late_outcome"]
    assert world.state_of(ident) == "cancelled"


def test_a_cancel_for_an_offline_car_is_said_in_its_next_session():
    """The broker may still hold the command; after its expiry nothing needs to be said."""
    world, ident = ordered(ttl_s=60)
    world.offline(1)
    assert world.cancel(ident).downlinks == []
    effects = world.online(2)
    assert [(d["kind"], d["ref"]) for d in effects.downlinks] == [("cancel", ident)]
    world.now += 61_000
    assert world.online(3).downlinks == []
    assert world.twin["commands"]["cancels"] == {}


@pytest.mark.parametrize("stale_first", [True, False])
def test_a_cancel_is_said_once_in_a_session(stale_first):
    """Asked while the car is stale it waits for its return; asked before, it is not said again."""
    world, ident = ordered()
    stale_due = T0 + world.context.stale_after_ms
    if stale_first:
        world.due("presence", "1", stale_due)
        assert world.cancel(ident).downlinks == []
    else:
        assert len(world.cancel(ident).downlinks) == 1
        world.due("presence", "1", stale_due)
    effects = world.telemetry(1, speed=1.0)
    assert [d["kind"] for d in effects.downlinks] == ["cancel"] * stale_first


def test_a_running_command_cannot_be_cancelled():
    """409 with the state; nor when the car has fallen silent over it, for it may still be at it."""
    world, ident = ordered()
    world.outcome(ident, "running")
    answer = reply(world.cancel(ident))
    assert (answer["status"], answer["code"]) == (409, "illegal_transition")
    assert answer["body"] == {"state": "running"}
    world.due("command", ident, T0 + OVERDUE)
    answer = reply(world.cancel(ident))
    assert (answer["status"], answer["code"]) == (409, "illegal_transition")
    assert answer["body"] == {"state": "overdue"}
    assert "was running" in answer["detail"]
    world.outcome(ident, "succeeded")
    assert world.state_of(ident) == "succeeded"


def test_nothing_of_the_lane_runs_beside_a_silent_command_that_was_begun():
    """The next one goes out when the car has said the end, and not because of a cancel."""
    world, head = ordered(lane="fw")
    behind, effects = world.order(lane="fw")
    assert effects.downlinks == []
    world.outcome(head, "running")
    world.due("command", head, T0 + OVERDUE)
    assert world.cancel(head).downlinks == []
    effects = world.outcome(head, "succeeded")
    assert [d["ref"] for d in effects.downlinks] == [behind]


@pytest.mark.parametrize("said", [None, "received", "accepted"])
def test_a_silent_command_that_was_not_begun_can_be_cancelled(said):
    """Overdue after sent, delivered or accepted."""
    world, ident = ordered()
    world.delivery(ident)
    if said:
        world.outcome(ident, said)
    world.due("command", ident, T0 + OVERDUE)
    assert world.state_of(ident) == "overdue"
    assert reply(world.cancel(ident))["status"] == 200


def test_a_final_command_cannot_be_cancelled():
    """410 with the state."""
    world, ident = ordered()
    world.outcome(ident, "failed")
    answer = reply(world.cancel(ident))
    assert (answer["status"], answer["code"]) == (410, "already_final")
    assert answer["body"] == {"state": "failed"}


@pytest.mark.parametrize("ident", [command_id("car-1", T0, "no"), command_id("car-2", 1, "x"), 7])
def test_an_unknown_command_cannot_be_cancelled(ident):
    """404 command_not_found, also for ids of other vehicles and for nonsense."""
    answer = reply(connected().cancel(ident))
    assert (answer["status"], answer["code"]) == (404, "command_not_found")


def test_withdrawn_commands_are_bounded():
    """As many are remembered as may be open; the oldest is forgotten first."""
    world = World(Context(limits=Limits(open_commands=2)))
    world.online(1)
    idents = []
    for _ in range(4):
        ident, _ = world.order()
        world.cancel(ident)
        idents.append(ident)
    assert list(world.twin["commands"]["cancels"]) == idents[2:]


# --- deadlines ------------------------------------------------------------------------------------


def test_a_new_command_is_watched_for_its_expiry():
    """Armed when it is opened, online or not."""
    world = connected()
    ident, effects = world.order(ttl_s=60)
    assert [(d.ref, d.due) for d in effects.deadlines] == [(ident, T0 + 60_000)]


@pytest.mark.parametrize("ref", ["nonsense", command_id("car-1", T0, "gone")])
def test_a_deadline_of_an_unknown_command_does_nothing(ref):
    """Of a deleted twin's command, or of none."""
    effects = connected().due("command", ref, T0)
    assert effects.outdated
    assert not effects.deadlines


def test_deadlines_are_rebuilt_from_the_ledger():
    """One per open command, none for what has ended."""
    world = connected()
    queued, _ = world.order(ttl_s=60)
    sent, _ = world.order()
    world.delivery(sent)
    ended, _ = world.order()
    world.outcome(ended, "failed")
    rebuilt = {d.ref: d.due for d in world.deadlines if d.of == "command"}
    assert rebuilt == {queued: T0 + 60_000, sent: T0 + OVERDUE}


# --- one record ------------------------------------------------------------------------------------


def test_a_record_sees_its_own_writes():
    """Within one record an entry is read as the record has left it so far."""
    world, ident = ordered()
    position = Position(topic="requests", partition=3, offset=99)
    step = Step(world.twin, world.ledger, position, T0, world.context, Effects())
    command = step.command(ident)
    assert command is not None
    step.put({**command, "lane": "other"})
    assert step.command(ident) == {**command, "lane": "other"}

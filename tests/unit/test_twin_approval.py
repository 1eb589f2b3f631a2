"""Rules that ask first: approve, refuse, lapse; the interlocks are judged twice."""

import pytest

from tests.twin_builders import T0, World, kinds, reply
from twin.apply import Context, deadlines_of, due_of
from twin.policy import parse_policy

RULE = "limit-power-on-alarm"
TEXT = """
[[rule]]
name = "limit-power-on-alarm"
health = "alarm"
command = "limit_power"
args = { factor = 0.5 }
lane = "safety"
ttl_s = 600
cool_down_s = 900
approval = true
approval_ttl_s = 120
[[rule.require]]
signal = "speed"
max_age_s = 60
"""
TTL = 120_000


def asking(text=TEXT):
    """An online car in alarm whose rule awaits approval."""
    world = World(Context(policy=parse_policy(text, "test")))
    world.online(1)
    world.telemetry(1, speed=10.0)
    return world, world.score("alarm", 1)


def decisions(effects):
    return [change["what"] for change in effects.changes if change["kind"] == "decision"]


def test_the_rule_asks_and_gives_no_command():
    """Told with the command's cause and its end; further scores of the alarm ask nothing more."""
    world, effects = asking()
    assert effects.ledger == []
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["name"]) == ("awaiting_approval", "limit_power")
    assert (decision["until"], decision["cause"]["model"]) == (T0 + TTL, "autoencoder")
    assert [(d.of, d.ref, d.due) for d in effects.deadlines] == [("decision", RULE, T0 + TTL)]
    kept = world.twin["decisions"][RULE]
    assert (kept["verdict"], kept["until"]) == ("awaiting_approval", T0 + TTL)
    world.now += 1
    assert decisions(world.score("alarm", 2, event_time=world.now)) == []


def test_approved_it_becomes_the_command_with_its_cause():
    """201 with the entry, sent at once; the cause is the score that asked, and who approved."""
    world, effects = asking()
    cause = decisions(effects)[0]["cause"]
    world.now += 10_000
    world.score("alarm", 2, event_time=world.now)
    effects = world.answer("approve", RULE)
    (command,) = effects.ledger
    answer = reply(effects)
    assert (answer["status"], answer["body"]["id"]) == (201, command["id"])
    assert (command["name"], command["lane"], command["by"]) == (
        "limit_power",
        "safety",
        f"rule:{RULE}",
    )
    assert command["cause"] == {**cause, "approved_by": "ann"}
    assert kinds(effects) == ["decision", "command"]
    assert decisions(effects)[0]["by"] == "ann"
    assert [d["kind"] for d in effects.downlinks] == ["command"]
    assert world.twin["decisions"][RULE]["verdict"] == "command"


def test_approved_twice_it_is_one_command():
    """The second answer is 409 and names the command."""
    world, _ = asking()
    ident = reply(world.answer("approve", RULE))["body"]["id"]
    answer = reply(world.answer("approve", RULE))
    assert (answer["status"], answer["code"]) == (409, "not_awaiting_approval")
    assert answer["body"] == {"verdict": "command", "command": ident}
    assert len(world.ledger.entries) == 1


@pytest.mark.parametrize("verdict", ["approve", "refuse"])
def test_a_keyed_answer_repeats(verdict):
    """The same key gives the same answer, before any reply is there."""
    world, _ = asking()
    key = {"request_id": "k1", "idempotency_key": "k", "body_hash": "h"}
    first, again = (reply(world.answer(verdict, RULE, **key)) for _ in range(2))
    assert (again["status"], again["body"]) == (first["status"], first["body"])
    assert first["status"] == (201 if verdict == "approve" else 200)


def test_refused_it_is_not_asked_again_in_this_alert():
    """Told with who said no; a new alert asks anew."""
    world, _ = asking()
    effects = world.answer("refuse", RULE)
    assert (reply(effects)["status"], reply(effects)["body"]["by"]) == (200, "ann")
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["reason"]) == ("refused", "not_approved")
    for number in (2, 3):
        assert decisions(world.score("alarm", number)) == []
    world.now += 10
    world.score("normal", 4, event_time=world.now)
    effects = world.score("alarm", 5, event_time=world.now + 1)
    assert [d["verdict"] for d in decisions(effects)] == ["awaiting_approval"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda w: w.offline(1), "not_online", id="offline"),
        pytest.param(lambda w: setattr(w, "now", T0 + 61_000), "signal_old:speed", id="old signal"),
        pytest.param(lambda w: w.order("limit_power"), "command_open", id="open command"),
        pytest.param(
            lambda w: w.score("insufficient_data", 2, event_time=w.now),
            "health_passed",
            id="no alarm now",
        ),
        pytest.param(
            lambda w: setattr(
                w, "context", Context(policy=parse_policy("enabled = false" + TEXT, "test"))
            ),
            "policy_off",
            id="kill switch",
        ),
    ],
)
def test_an_interlock_refuses_what_was_approved(change, reason):
    """409 with the interlock, told; the question stays open."""
    world, _ = asking()
    change(world)
    effects = world.answer("approve", RULE)
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (409, "interlock_refused")
    assert (answer["body"]["reason"], answer["revision"]) == (reason, world.twin["revision"])
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["reason"]) == ("refused", reason)
    assert effects.ledger == []
    kept = world.twin["decisions"][RULE]
    assert (kept["verdict"], kept["reason"]) == ("awaiting_approval", reason)


def test_after_the_interlock_agrees_the_same_question_can_be_approved():
    """The car is back."""
    world, _ = asking()
    world.offline(1)
    world.answer("approve", RULE)
    world.online(2)
    assert reply(world.answer("approve", RULE))["status"] == 201


def test_nobody_answers_and_it_lapses():
    """By a deadline record; an early one does nothing; later it is asked again."""
    world, _ = asking()
    assert [d for d in deadlines_of(world.twin, world.context) if d.of == "decision"]
    assert due_of(world.twin, world.ledger, "decision", RULE, world.context) == T0 + TTL
    early = world.due("decision", RULE, T0 + TTL - 1)
    assert early.outdated
    assert [d.due for d in early.deadlines] == [T0 + TTL]
    effects = world.due("decision", RULE, T0 + TTL)
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["reason"]) == ("lapsed", "not_answered")
    assert due_of(world.twin, world.ledger, "decision", RULE, world.context) is None
    assert reply(world.answer("approve", RULE))["body"] == {"verdict": "lapsed"}
    world.telemetry(1, speed=10.0)
    effects = world.score("alarm", 9, event_time=world.now)
    assert decisions(effects)[0]["verdict"] == "awaiting_approval"


def test_an_answer_that_overtakes_the_deadline_comes_too_late_all_the_same():
    """At its end the question is over, whichever record comes first."""
    world, _ = asking()
    world.now = T0 + TTL
    effects = world.answer("approve", RULE)
    assert (reply(effects)["status"], reply(effects)["code"]) == (409, "not_awaiting_approval")
    assert decisions(effects)[0]["verdict"] == "lapsed"
    assert effects.ledger == []
    assert world.due("decision", RULE, T0 + TTL).outdated


def test_it_lapses_when_the_alarm_has_passed():
    """A judgement ends it; data that does not suffice does not."""
    world, _ = asking()
    assert decisions(world.score("insufficient_data", 2)) == []
    assert world.twin["decisions"][RULE]["verdict"] == "awaiting_approval"
    (decision,) = decisions(world.score("normal", 3))
    assert (decision["verdict"], decision["reason"]) == ("lapsed", "health_passed")


@pytest.mark.parametrize(
    ("rule", "verdict", "status", "code"),
    [
        (RULE, "maybe", 400, "bad_request"),
        (RULE, None, 400, "bad_request"),
        ("other", "approve", 404, "decision_not_found"),
        (None, "approve", 404, "decision_not_found"),
    ],
)
def test_an_answer_that_fits_nothing_is_refused(rule, verdict, status, code):
    """It changes nothing and names what there is."""
    world, _ = asking()
    effects = world.answer(verdict, rule)
    answer = reply(effects)
    assert (answer["status"], answer["code"]) == (status, code)
    assert not effects.changed
    if status == 404:
        assert RULE in answer["detail"]


def test_a_rule_that_is_gone_decides_nothing_more():
    """Its question cannot be approved, and its deadline closes it."""
    world, _ = asking()
    world.context = Context(policy=parse_policy("", "test"))
    assert reply(world.answer("approve", RULE))["code"] == "decision_not_found"
    assert decisions(world.due("decision", RULE, T0 + TTL))[0]["verdict"] == "lapsed"

"""Health from scores, alerts, and decisions with their interlocks and causes."""

import pytest

from tests.twin_builders import T0, World, kinds, score, telemetry
from twin.apply import Context, Limits
from twin.decide import share_of
from twin.policy import load_policy, parse_policy
from twin.wire import topics

POLICY = load_policy(None)
COOL_DOWN = POLICY.rules[0].cool_down_ms


def connected(policy=POLICY, **more):
    """An online car whose speed is known now."""
    world = World(Context(policy=policy, **more))
    world.online(1)
    world.telemetry(1, speed=10.0)
    return world


def decisions(effects):
    return [change["what"] for change in effects.changes if change["kind"] == "decision"]


# --- health ---------------------------------------------------------------------------------------


def test_a_score_becomes_health():
    """State, since, the models' figures in few digits; a change is told when the state changes."""
    world = connected()
    effects = world.score("warning", 1)
    health = world.twin["health"]
    assert (health["state"], health["since"], health["score_id"]) == ("warning", T0, "car-1:3-1:v1")
    assert health["models"]["autoencoder"]["signals"] == [{"signal": "coolant_temp", "share": 0.61}]
    assert health["models"]["lstm"]["failure_probability"] == 0.2
    assert kinds(effects) == ["health"]
    world.now += 10
    effects = world.score("warning", 2)
    assert effects.changes == []
    assert effects.changed
    assert world.twin["health"]["since"] == T0


def test_figures_are_rounded():
    """Six significant digits; shares to the per mille."""
    world = connected()
    record = score("normal", 1)
    record["models"] = {
        "autoencoder": {
            "version": "v1",
            "score": 1.23456789,
            "signals": [{"signal": "speed", "share": 0.33333}],
        }
    }
    world.put(topics.SCORES, record)
    assert world.twin["health"]["models"]["autoencoder"] == {
        "version": "v1",
        "score": 1.23457,
        "signals": [{"signal": "speed", "share": 0.333}],
    }


def test_an_older_or_repeated_score_changes_nothing():
    """(event_time, session, sequence, id) orders scores."""
    world = connected()
    world.score("alarm", 5)
    before = world.twin["revision"]
    assert world.score("normal", 5).outdated
    assert world.score("normal", 4).outdated
    assert world.score("normal", 9, event_time=T0 - 1).outdated
    assert world.twin["health"]["state"] == "alarm"
    assert world.twin["revision"] == before


def test_an_alarm_opens_an_alert_and_a_judgement_closes_it():
    """Insufficient data closes nothing; the alert names the score that opened it."""
    world = connected()
    assert kinds(world.score("alarm", 1))[:2] == ["health", "alert"]
    opened = world.twin["health"]["alert"]
    assert opened == {"score_id": "car-1:3-1:v1", "since": T0}
    world.score("insufficient_data", 2)
    assert "alert" not in kinds(world.score("alarm", 3))
    assert world.twin["health"]["alert"] == opened
    effects = world.score("normal", 4)
    closed = next(c["what"] for c in effects.changes if c["kind"] == "alert")
    assert (closed["state"], closed["score_id"]) == ("closed", "car-1:3-1:v1")
    assert closed["closed_by"] == "car-1:3-4:v1"
    assert "alert" not in world.twin["health"]


def test_a_score_makes_no_twin():
    """Scores still on their way when a twin is deleted do not bring it back."""
    world = World()
    assert world.score("alarm", 1).outdated
    assert world.state is None


# --- decisions ------------------------------------------------------------------------------------


def test_an_alarm_gives_the_policys_command_with_its_cause():
    """The decision is told, and the command names score record, model, version, value, threshold."""
    world = connected()
    effects = world.score("alarm", 1)
    (command,) = effects.ledger
    assert (command["name"], command["args"], command["lane"]) == (
        "limit_power",
        {"factor": 0.5},
        "safety",
    )
    assert command["expires_at"] - command["issued_at"] == 600_000
    assert command["by"] == "rule:limit-power-on-alarm"
    assert command["cause"] == {
        "score": "car-1:3-1:v1",
        "topic": "scores",
        "partition": 3,
        "offset": 0,
        "model": "autoencoder",
        "version": "v1",
        "value": 4.2,
        "threshold": 3.0,
        "signals": [{"signal": "coolant_temp", "share": 0.61}],
        "rule": "limit-power-on-alarm",
    }
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["command"]) == ("command", command["id"])
    assert kinds(effects) == ["health", "alert", "decision", "command"]
    assert effects.downlinks[0]["payload"]["cause"] == command["cause"]


def test_the_cause_is_the_model_furthest_over_its_threshold():
    """Here the failure probability."""
    world = connected()
    record = score("alarm", 1)
    record["models"]["lstm"]["failure_probability"] = 0.9
    effects = world.put(topics.SCORES, record)
    assert effects.ledger[0]["cause"]["model"] == "lstm"
    assert effects.ledger[0]["cause"]["value"] == 0.9


def test_the_same_log_gives_the_same_command_id():
    """Two workers that decide the same record name the command alike."""
    ids = {connected().score("alarm", 1).ledger[0]["id"] for _ in range(2)}
    assert len(ids) == 1


def suspect_speed(world):
    world.put(topics.TELEMETRY, telemetry(world.now, 1, 2, suspect=["speed"], speed=119.0))


def old_speed(world):
    world.now += 61_000
    world.telemetry(1, coolant_temp=90.0)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(lambda world: world.offline(1), "not_online", id="offline"),
        pytest.param(suspect_speed, "signal_suspect:speed", id="suspect signal"),
        pytest.param(old_speed, "signal_old:speed", id="old signal"),
        pytest.param(lambda w: w.order("limit_power"), "command_open", id="open command"),
    ],
)
def test_an_interlock_refuses_and_says_why_once(prepare, reason):
    """No command; the refusal is told with the first score and not with the next."""
    world = connected()
    prepare(world)
    effects = world.score("alarm", 1, event_time=world.now)
    (decision,) = decisions(effects)
    assert (decision["verdict"], decision["reason"]) == ("refused", reason)
    assert effects.ledger == []
    world.now += 1
    assert decisions(world.score("alarm", 2, event_time=world.now)) == []
    assert world.twin["decisions"]["limit-power-on-alarm"]["reason"] == reason


def test_a_signal_that_was_never_reported_refuses():
    """The car has no speed."""
    world = World(Context(policy=POLICY))
    world.online(1)
    (decision,) = decisions(world.score("alarm", 1))
    assert decision["reason"] == "signal_missing:speed"


@pytest.mark.parametrize(("speed", "fires"), [(0.0, True), (2.0, True), (2.5, False), (-1, False)])
def test_a_requirement_may_bound_the_signal(speed, fires):
    """at_least and at_most are inclusive."""
    rule = POLICY_TEXT.replace("max_age_s = 60", "max_age_s = 60\nat_least = 0\nat_most = 2")
    world = World(Context(policy=parse_policy(rule, "test")))
    world.online(1)
    world.telemetry(1, speed=speed)
    effects = world.score("alarm", 1)
    assert bool(effects.ledger) is fires
    if not fires:
        assert decisions(effects)[0]["reason"] == "signal_out_of_bounds:speed"


def test_the_kill_switch_refuses_everything():
    """enabled = false: no command, and each twin says so once."""
    world = connected(parse_policy(POLICY_TEXT.replace("= true", "= false"), "test"))
    effects = world.score("alarm", 1)
    assert decisions(effects)[0]["reason"] == "policy_off"
    assert effects.ledger == []


def test_a_score_without_a_threshold_is_no_evidence():
    """A command must be able to name what was exceeded."""
    world = connected()
    record = {**score("alarm", 1), "models": {"lstm": {"version": "v1"}}}
    effects = world.put(topics.SCORES, record)
    assert decisions(effects)[0]["reason"] == "no_evidence"


def test_there_must_be_room_for_one_more_open_command():
    """The limit of open commands holds for rules, too."""
    world = connected(limits=Limits(open_commands=1))
    world.order("ping")
    assert decisions(world.score("alarm", 1))[0]["reason"] == "too_many_open_commands"


def test_there_must_be_room_for_one_more_command_of_a_day():
    """As the limit of what people ask."""
    world = connected(limits=Limits(day_commands=1))
    world.order("ping")
    assert decisions(world.score("alarm", 1))[0]["reason"] == "too_many_commands"


def test_after_a_success_nothing_more_is_done_in_the_same_alert():
    """done_already, however long the alarm lasts; a new alert counts anew."""
    world = connected()
    (command,) = world.score("alarm", 1).ledger
    world.outcome(command["id"], "succeeded")
    world.now += COOL_DOWN + 1
    world.telemetry(1, speed=10.0)
    assert decisions(world.score("alarm", 2, event_time=world.now))[0]["reason"] == "done_already"
    world.score("normal", 3, event_time=world.now + 1)
    (again,) = world.score("alarm", 4, event_time=world.now + 2).ledger
    assert again["id"] != command["id"]


def test_a_failed_command_is_tried_again_after_the_cool_down():
    """Not before, in the same or a new alert."""
    world = connected()
    (command,) = world.score("alarm", 1).ledger
    world.outcome(command["id"], "failed")
    assert decisions(world.score("alarm", 2))[0]["reason"] == "cool_down"
    world.score("normal", 3)
    assert decisions(world.score("alarm", 4))[0]["reason"] == "cool_down"
    world.now += COOL_DOWN
    world.telemetry(1, speed=10.0)
    assert len(world.score("alarm", 5, event_time=world.now).ledger) == 1


def test_a_refusal_is_told_again_in_the_next_alarm():
    """The state has passed in between."""
    world = connected()
    world.offline(1)
    for number in (1, 3):
        assert len(decisions(world.score("alarm", number))) == 1
        assert decisions(world.score("normal", number + 1)) == []


def test_a_new_reason_is_told():
    """The car comes back: not_online gives way to the command."""
    world = connected()
    world.offline(1)
    assert decisions(world.score("alarm", 1))[0]["reason"] == "not_online"
    world.online(2)
    effects = world.score("alarm", 2)
    assert [d["verdict"] for d in decisions(effects)] == ["command"]


def test_two_rules_for_one_command_give_it_once():
    """The second sees the first one's command."""
    second = POLICY_TEXT.partition("[[rule]]")[2].replace("limit-power-on-alarm", "again")
    policy = parse_policy(POLICY_TEXT + "\n[[rule]]" + second, "test")
    effects = connected(policy).score("alarm", 1)
    assert [d.get("reason", d["verdict"]) for d in decisions(effects)] == [
        "command",
        "command_open",
    ]
    assert len(effects.ledger) == 1


def test_the_memory_of_a_rule_that_is_gone_is_dropped():
    """Only today's rules are remembered, so the document does not grow with policies."""
    world = connected()
    world.score("alarm", 1)
    renamed = POLICY_TEXT.replace("limit-power-on-alarm", "renamed")
    world.context = Context(policy=parse_policy(renamed, "test"))
    world.score("alarm", 2)
    assert set(world.twin["decisions"]) == {"renamed"}


POLICY_TEXT = """
enabled = true
[[rule]]
name = "limit-power-on-alarm"
health = "alarm"
command = "limit_power"
args = { factor = 0.5 }
lane = "safety"
ttl_s = 600
cool_down_s = 900
[[rule.require]]
signal = "speed"
max_age_s = 60
"""


# --- rate cap -------------------------------------------------------------------------------------


def capped(cap, partitions=1, **more):
    """A car of fleet berlin under a rule with a cap, on partition 3."""
    text = POLICY_TEXT.replace("ttl_s = 600", f"ttl_s = 600\nmax_per_fleet_per_minute = {cap}")
    world = connected(parse_policy(text, "test"), partitions=partitions, **more)
    world.request("attributes", {"value": {"fleet": "berlin"}})
    return world


def given(world, fleet, at, rule="limit-power-on-alarm"):
    """Another car's command of the rule in the ledger of the partition."""
    number = len(world.ledger.entries)
    world.ledger.entries[f"other{number}"] = {
        "id": f"other{number}",
        "vehicle_id": "car-2",
        "by": f"rule:{rule}",
        "fleet": fleet,
        "issued_at": at,
    }


@pytest.mark.parametrize(
    ("others", "refused"),
    [
        pytest.param([("berlin", T0)], False, id="room for one more"),
        pytest.param([("berlin", T0), ("berlin", T0 - 59_999)], True, id="full"),
        pytest.param([("berlin", T0), ("berlin", T0 - 60_000)], False, id="a minute ago"),
        pytest.param([("berlin", T0), ("paris", T0)], False, id="another fleet"),
    ],
)
def test_the_rate_cap_counts_commands_of_the_rule_for_the_fleet(others, refused):
    """At most two in a minute here; the refusal names the interlock."""
    world = capped(2)
    for fleet, at in others:
        given(world, fleet, at)
    effects = world.score("alarm", 1)
    (decision,) = decisions(effects)
    assert (decision.get("reason") == "rate_cap") is refused
    assert len(effects.ledger) == (not refused)


def test_other_rules_have_caps_of_their_own():
    """What another rule gave does not count."""
    world = capped(1)
    given(world, "berlin", T0, rule="other")
    assert len(world.score("alarm", 1).ledger) == 1


def test_a_command_of_a_rule_names_its_fleet():
    """So that the cap can be counted from the ledger after a restart; "" is a fleet, too."""
    assert capped(1).score("alarm", 1).ledger[0]["fleet"] == "berlin"
    assert connected().score("alarm", 1).ledger[0]["fleet"] == ""


@pytest.mark.parametrize(("partitions", "fires"), [(2, 2), (4, 1), (24, 1)])
def test_a_partition_has_its_share_of_the_cap(partitions, fires):
    """Of 4 a minute partition 3 may give 2 of 2 (modulo), 1 of 4, and never less than 1."""
    world = capped(4, partitions=partitions)
    for _ in range(fires - 1):
        given(world, "berlin", T0)
    assert len(world.score("alarm", 1).ledger) == 1
    world = capped(4, partitions=partitions)
    for _ in range(fires):
        given(world, "berlin", T0)
    assert world.score("alarm", 1).ledger == []


@pytest.mark.parametrize(("cap", "partitions"), [(60, 24), (24, 24), (25, 24), (7, 3), (100, 1)])
def test_the_shares_add_up_to_the_cap(cap, partitions):
    """When there is at least one for each partition; else each has one."""
    assert sum(share_of(cap, partitions, n) for n in range(partitions)) == cap
    assert {share_of(1, partitions, n) for n in range(partitions)} == {1}

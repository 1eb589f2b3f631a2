"""The policy file: the default, and one sentence for each way to get it wrong."""

import pytest

from twin.policy import Policy, PolicyError, Requirement, Rule, load_policy, parse_policy

GOOD = """
[[rule]]
name = "r"
health = "warning"
command = "ping"
ttl_s = 1.5
cool_down_s = 0
"""


def test_the_default_limits_power_on_alarm():
    """What the package ships."""
    assert load_policy(None) == Policy(
        (
            Rule(
                name="limit-power-on-alarm",
                health="alarm",
                command="limit_power",
                args={"factor": 0.5},
                lane="safety",
                ttl_ms=600_000,
                cool_down_ms=900_000,
                require=(Requirement("speed", 60_000),),
            ),
        ),
        enabled=True,
    )


def test_what_is_not_said_has_a_default():
    """No arguments, the default lane, no requirement; an empty file has no rules."""
    (rule,) = parse_policy(GOOD, "p").rules
    assert (rule.args, rule.lane, rule.require, rule.ttl_ms) == ({}, "default", (), 1500)
    assert parse_policy("", "p") == Policy()
    assert parse_policy("enabled = false", "p").enabled is False


def test_caps_and_approval_are_read():
    """The rate cap, and that somebody must agree, within an hour unless told otherwise."""
    (rule,) = parse_policy(GOOD, "p").rules
    assert (rule.max_per_fleet_per_minute, rule.approval) == (None, False)
    (rule,) = parse_policy(GOOD + "max_per_fleet_per_minute = 60\napproval = true", "p").rules
    assert (rule.max_per_fleet_per_minute, rule.approval) == (60, True)
    assert rule.approval_ttl_ms == 3_600_000
    (rule,) = parse_policy(GOOD + "approval = true\napproval_ttl_s = 5", "p").rules
    assert rule.approval_ttl_ms == 5000


def test_a_file_is_read(tmp_path):
    """POLICY_FILE."""
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    assert load_policy(path) == parse_policy(GOOD, "p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enabled = 1", ["p", "enabled", "'1'", "true or false"]),
        ("rules = []", ["'rules' is not known", "enabled, rule"]),
        ("rule = 5", ["rule", "[[rule]]"]),
        ("rule = [", ["not TOML"]),
        (GOOD.replace('"warning"', '"bad"'), ["'r'", "health", "'bad'", "'warning' or 'alarm'"]),
        (GOOD.replace("ttl_s = 1.5", "ttl_s = 0"), ["ttl_s", "'0'", "1 to 604800"]),
        (GOOD.replace("ttl_s = 1.5", "ttl_s = nan"), ["ttl_s", "nan"]),
        (GOOD.replace("ttl_s = 1.5", ""), ["ttl_s is missing", "1 to 604800"]),
        (GOOD.replace('"ping"', '"Ping it"'), ["command", "'Ping it'"]),
        (GOOD.replace('name = "r"', ""), ["rule 1", "name is missing"]),
        (GOOD + "args = 5", ["args", "table"]),
        (GOOD + "args = { at = 2020-01-01 }", ["args", "date"]),
        (GOOD + f"args = {{ n = {2**70} }}", ["args", "JSON"]),
        (GOOD + "args = { a = [[[[[[[[1]]]]]]]] }", ["nested deeper"]),
        (GOOD + "max_per_fleet_per_minute = 0", ["max_per_fleet_per_minute", "'0'", "1 to"]),
        (GOOD + "max_per_fleet_per_minute = true", ["max_per_fleet_per_minute", "integer"]),
        (GOOD + "approval = 1", ["approval", "true or false"]),
        (GOOD + "approval_ttl_s = 5", ["approval_ttl_s", "approval = true"]),
        (GOOD + "approval = true\napproval_ttl_s = 0", ["approval_ttl_s", "1 to 604800"]),
        (GOOD + "colour = 1", ["'colour' is not known", "cool_down_s"]),
        (GOOD + GOOD, ["two rules", "'r'"]),
        (GOOD + '[[rule.require]]\nsignal = "warp"\nmax_age_s = 1', ["signal", "'warp'"]),
        (GOOD + '[[rule.require]]\nsignal = "speed"', ["require 1", "max_age_s is missing"]),
        (
            GOOD + '[[rule.require]]\nsignal = "speed"\nmax_age_s = 1\nat_least = 2\nat_most = 1',
            ["at_least 2", "at_most 1"],
        ),
        (GOOD + "[[rule.require]]\nsignal = []\nmax_age_s = 1", ["signal"]),
    ],
)
def test_a_wrong_policy_is_refused_in_one_sentence(text, words):
    """It names source, rule, field, value and what is accepted."""
    with pytest.raises(PolicyError) as refused:
        parse_policy(text, "policy-x.toml")
    message = str(refused.value)
    assert "policy-x.toml" in message
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """Missing, or no text."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", binary):
        with pytest.raises(PolicyError, match="cannot be read"):
            load_policy(path)

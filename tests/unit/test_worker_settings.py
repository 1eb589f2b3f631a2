"""What the worker is set to: read once, given to the pure core, and decided by."""

import pytest

from tests.twin_builders import World, reply
from twin.apply import Context, Limits
from twin.policy import Policy, PolicyError, load_policy
from twin.settings import WorkerSettings
from twin.state import size
from twin.worker import decided_by, limits


def world_of(monkeypatch, **values):
    """A car whose owner has these settings, online unless nothing makes its twin."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    world = World(decided_by(WorkerSettings.load(), Policy(), 1))
    world.online(1)
    return world


def test_without_a_word_the_limits_are_the_core_s_own():
    """No limit has two defaults."""
    settings = WorkerSettings.load()
    assert limits(settings) == Limits()
    assert decided_by(settings, Policy(), 12) == Context(partitions=12)


def test_every_limit_has_a_setting(monkeypatch):
    """Each of them moves when its variable does, and no other."""
    changed = {
        "DOCUMENT_MAX_BYTES": ("5000", Limits(document_bytes=5000)),
        "DEPTH_MAX": ("2", Limits(depth=2)),
        "KEY_MAX_BYTES": ("9", Limits(key_bytes=9)),
        "ATTRIBUTES_MAX": ("3", Limits(attributes=3)),
        "ATTRIBUTE_MAX_BYTES": ("4", Limits(attribute_bytes=4)),
        "OPEN_COMMANDS_MAX": ("1", Limits(open_commands=1)),
        "DAY_COMMANDS_MAX": ("60", Limits(day_commands=60)),
        "COMMAND_ARGS_MAX_BYTES": ("20", Limits(command_bytes=20)),
        "COMMAND_TTL_S": ("60", Limits(ttl_default_ms=60_000)),
        "COMMAND_TTL_MAX_S": ("7200", Limits(ttl_max_ms=7_200_000)),
    }
    assert len(changed) == len(Limits.__dataclass_fields__)
    for name, (value, expected) in changed.items():
        with monkeypatch.context() as given:
            given.setenv(name, value)
            assert limits(WorkerSettings.load()) == expected


@pytest.mark.parametrize(
    ("name", "value", "ask", "status", "code"),
    [
        ("DOCUMENT_MAX_BYTES", "4096", ("desired", {"op": "put", "value": {"a": "x" * 4000}}), 413,
         "document_too_large"),
        ("DEPTH_MAX", "2", ("desired", {"op": "put", "value": {"a": {"b": {"c": 1}}}}), 400, "too_deep"),
        ("KEY_MAX_BYTES", "3", ("desired", {"op": "put", "value": {"abcd": 1}}), 400, "key_too_long"),
        ("ATTRIBUTES_MAX", "1", ("attributes", {"value": {"a": "x", "b": "x"}}), 413,
         "document_too_large"),
        ("ATTRIBUTE_MAX_BYTES", "3", ("attributes", {"value": {"a": "wxyz"}}), 400, "bad_request"),
    ],
)  # fmt: skip
def test_what_is_asked_beyond_a_setting_is_refused_by_name(
    monkeypatch, name, value, ask, status, code
):
    """And accepted without the setting."""
    kind, body = ask
    assert reply(world_of(monkeypatch).request(kind, body))["status"] == 200
    answer = reply(world_of(monkeypatch, **{name: value}).request(kind, body))
    assert (answer["status"], answer["code"]) == (status, code)
    assert value in answer["detail"]


@pytest.mark.parametrize(
    ("name", "value", "more", "code"),
    [
        ("OPEN_COMMANDS_MAX", "1", {}, "too_many_open_commands"),
        ("COMMAND_ARGS_MAX_BYTES", "20", {"args": {"a": "x" * 20}}, "document_too_large"),
        ("COMMAND_TTL_MAX_S", "3600", {"ttl_s": 3601}, "bad_ttl"),
    ],
)
def test_commands_beyond_a_setting_are_refused_by_name(monkeypatch, name, value, more, code):
    """The first one is accepted, and the second, when nothing is set."""
    for settings, expected in (({}, [201, 201]), ({name: value}, [201, code])):
        world = world_of(monkeypatch, **settings)
        answers = [reply(world.order()[1]), reply(world.order(**more)[1])]
        assert [answer.get("code", answer["status"]) for answer in answers] == expected


def test_a_command_without_a_life_gets_the_one_that_is_set(monkeypatch):
    """Seconds."""
    world = world_of(monkeypatch, COMMAND_TTL_S="90")
    ident, _ = world.order()
    assert world.ledger.entries[ident]["expires_at"] == world.now + 90_000


@pytest.mark.parametrize(
    ("name", "value", "attributes"),
    [
        ("ATTRIBUTES_MAX", "1", {"fleet": "b", "vin": "1"}),
        ("KEY_MAX_BYTES", "4", {"fleet": "b"}),
        ("ATTRIBUTE_MAX_BYTES", "3", {"a": "wxyz"}),
    ],
)
def test_a_birth_beyond_a_setting_counts_without_its_attributes(
    monkeypatch, name, value, attributes
):
    """They go to `rejected` under limit_reached."""
    world = world_of(monkeypatch, **{name: value})
    rejected = world.online(2, attributes=attributes).rejected
    assert rejected is not None
    assert rejected.reason == "limit_reached"
    assert f" {value} " in str(rejected)
    assert (world.twin["attributes"], world.twin["presence"]["session"]) == ({}, 2)


def test_without_auto_create_a_message_makes_no_twin(monkeypatch):
    """It is rejected under unknown_vehicle; attributes make the twin."""
    world = world_of(monkeypatch, AUTO_CREATE="false")
    assert world.state is None
    rejected = world.telemetry(speed=1.0).rejected
    assert rejected is not None
    assert rejected.reason == "unknown_vehicle"
    assert reply(world.request("attributes", {"value": {}}))["status"] == 201
    assert world.telemetry(speed=1.0).rejected is None


def test_desired_expires_when_it_is_set_to(monkeypatch):
    """Seconds, from the request on."""
    world = world_of(monkeypatch, DESIRED_TTL_S="30")
    world.desire({"a": 1})
    assert world.twin["desired"]["status"]["a"]["until"] == world.now + 30_000


def test_a_policy_is_held_to_the_same_limits(monkeypatch, tmp_path):
    """A rule whose command nobody may ask for stops the worker at its start."""
    path = tmp_path / "policy.toml"
    rule = '[[rule]]\nname="r"\nhealth="alarm"\ncommand="c"\ncool_down_s=0\n'
    path.write_text(rule + 'ttl_s=60\nargs={a="xxxx"}')
    assert load_policy(path, limits(WorkerSettings.load()))
    for name, value, words in (
        ("COMMAND_TTL_MAX_S", "59", "field ttl_s is 60; at most 59 is accepted"),
        ("COMMAND_ARGS_MAX_BYTES", "11", "field args is 12 bytes long; at most 11 are accepted"),
    ):
        with monkeypatch.context() as given:
            given.setenv(name, value)
            given.setenv("COMMAND_TTL_S", "10")
            with pytest.raises(PolicyError, match=words):
                load_policy(path, limits(WorkerSettings.load()))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"DEPTH_MAX": "9"}, "setting DEPTH_MAX='9' is not accepted: "),
        ({"OPEN_COMMANDS_MAX": "51"}, "setting OPEN_COMMANDS_MAX='51' is not accepted: "),
        ({"OPEN_COMMANDS_MAX": "0"}, "setting OPEN_COMMANDS_MAX='0' is not accepted: "),
        ({"DOCUMENT_MAX_BYTES": "1 MB"}, "setting DOCUMENT_MAX_BYTES='1 MB' is not accepted: "),
        ({"AUTO_CREATE": "perhaps"}, "setting AUTO_CREATE='perhaps' is not accepted: "),
        (
            {"COMMAND_TTL_MAX_S": "60"},
            "setting COMMAND_TTL_S=3600 is not accepted: with COMMAND_TTL_MAX_S 60, at most 60 is",
        ),
    ],
)
def test_what_no_worker_can_hold_is_refused_at_the_start(monkeypatch, capsys, values, said):
    """One sentence with the variable, its value and what is accepted."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        WorkerSettings.load()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_longer_document_can_be_allowed(monkeypatch):
    """Up to 256 KiB."""
    world = world_of(monkeypatch, DOCUMENT_MAX_BYTES=str(256 * 1024))
    assert reply(world.desire({"a": "x" * 60_000}))["status"] == 200
    assert size(world.twin) > 64 * 1024

"""What is behind each part of a document: record, rule, model."""

import orjson
import pytest

from tests.twin_builders import T0, World
from twin.apply import Context
from twin.document import dump
from twin.policy import load_policy
from twin.wire.explain import explain
from twin.wire.pointer import PathNotFound


def shown(world):
    """The document as the API reads it."""
    return orjson.loads(dump(world.twin))


def behind(world, path):
    found = explain(shown(world), path)
    record = found["record"]
    assert record is None or record["partition"] == 3
    return record and f"{record['topic']}/{record['offset']}"


def driven():
    """An online car with attributes, telemetry of two kinds, config and desired."""
    world = World(Context(policy=load_policy(None)))
    world.online(1, attributes={"fleet": "berlin", "model": "m1"})
    world.telemetry(1, speed=1.0, coolant_temp=90.0)
    world.now += 1
    world.telemetry(1, speed=2.0)
    world.reported(1, 1, {"interval": 10, "mode": {"eco": True, "sport": False}})
    world.desire({"interval": 5, "mode": {"eco": True}})
    return world


@pytest.mark.parametrize(
    ("path", "record"),
    [
        ("reported.speed", "telemetry/1"),
        ("reported.coolant_temp.v", "telemetry/0"),
        ("reported", "telemetry/1"),
        ("presence.state", "presence/0"),
        ("presence.seen", "telemetry/1"),
        ("attributes.fleet", "presence/0"),
        ("config.mode.eco", "reported/0"),
        ("config", "reported/0"),
        ("confirmed.sequence", "reported/0"),
        ("desired.version", "requests/0"),
        ("desired.properties.interval", "requests/0"),
        ("desired.status.mode.state", "requests/0"),
        ("desired.offered.session", "requests/0"),
        ("health.state", "presence/0"),
        ("commands.open", "presence/0"),
        ("vehicle_id", "presence/0"),
        ("created_at", "presence/0"),
        ("revision", "requests/0"),
        ("updated_at", "requests/0"),
        ("", "requests/0"),
        ("applied.telemetry", "telemetry/1"),
        ("causes./attributes", "presence/0"),
    ],
)
def test_each_part_names_its_record(path, record):
    """What nobody has changed is of the record that made the twin."""
    assert behind(driven(), path) == record


def test_a_delta_names_what_is_wanted_and_what_is():
    """The request, and the car's word that it differs from; empty, the word that agrees."""
    world = driven()
    found = explain(shown(world), "delta.interval")
    assert (found["value"], behind(world, "delta.interval")) == (5, "requests/0")
    assert found.get("also") == [{"topic": "reported", "partition": 3, "offset": 0}]
    world.reported(1, 2, {"interval": 5}, desired_version=1)
    assert behind(world, "delta") == "reported/1"
    assert behind(world, "desired.status.interval") == "reported/1"
    assert behind(world, "config.mode.sport") == "reported/0"


def test_plain_telemetry_is_behind_the_revision_that_it_made():
    """It leaves no entry in the map of causes, and is found all the same."""
    world = driven()
    before = dict(world.twin["causes"])
    world.now += 1
    world.telemetry(1, speed=3.0)
    assert world.twin["causes"] == before
    assert behind(world, "revision") == "telemetry/2"
    world.order()
    assert behind(world, "revision") == "requests/1"


def test_a_late_record_is_not_behind_anything():
    """It changed nothing."""
    world = driven()
    world.now -= 100
    world.telemetry(1, speed=9.0)
    assert behind(world, "reported.speed") == "telemetry/1"
    assert behind(world, "revision") == "requests/0"
    assert behind(world, "counts.late") == "telemetry/2"


def test_last_seen_stays_explained_when_the_car_is_gone():
    """By the telemetry before the will; a birth that nothing followed by itself."""
    world = driven()
    world.now += 10
    world.offline(1)
    assert behind(world, "presence.state") == "presence/1"
    assert behind(world, "presence.seen") == "telemetry/1"
    world.online(2)
    assert behind(world, "presence.seen") == "presence/2"
    world.now += 10
    world.offline(2)
    assert behind(world, "presence.seen") == "presence/2"


def test_an_offline_that_was_told_late_is_still_of_its_will():
    """The deadline tells, the will has said it."""
    world = driven()
    world.offline(1)
    world.due("presence", "1", world.now + world.context.debounce_ms)
    assert behind(world, "presence.state") == "presence/1"


def test_a_stale_car_is_of_the_deadline_that_found_it():
    """And of the telemetry that ended it."""
    world = driven()
    world.due("presence", "1", world.now + world.context.stale_after_ms)
    assert behind(world, "presence.state") == "requests/1"
    world.telemetry(1, speed=4.0)
    assert behind(world, "presence.state") == "telemetry/2"
    assert behind(world, "presence.seen") == "telemetry/2"


def test_health_names_score_models_and_versions():
    """Since when is of the score that changed the state; one model's figures name it alone."""
    world = driven()
    world.score("alarm", 1, event_time=world.now)
    world.score("alarm", 2, event_time=world.now)
    assert behind(world, "health.models.lstm.failure_probability") == "scores/1"
    assert behind(world, "health.since") == "scores/0"
    assert behind(world, "health.alert.since") == "scores/0"
    document = shown(world)
    assert explain(document, "health.state")["models"] == {"autoencoder": "v1", "lstm": "v1"}
    found = explain(document, "health.models.lstm.failure_probability")
    assert (found["models"], found["score"]) == ({"lstm": "v1"}, "car-1:3-2:v1")
    assert explain(document, "health.alert")["score"] == "car-1:3-1:v1"
    world.score("normal", 3, event_time=world.now)
    assert behind(world, "health.since") == "scores/2"


def test_a_decision_names_rule_score_and_command():
    """And the record on which it was made."""
    world = driven()
    world.now = T0 + 10
    world.score("alarm", 1, event_time=world.now)
    found = explain(shown(world), "decisions.limit-power-on-alarm.verdict")
    assert behind(world, "decisions.limit-power-on-alarm.verdict") == "scores/0"
    assert (found["rule"], found["score"]) == ("limit-power-on-alarm", "car-1:3-1:v1")
    assert found["command"] == world.twin["commands"]["open"][0]
    assert behind(world, "commands.last.state") == "scores/0"


def test_attributes_by_birth_and_by_request():
    """Each by whoever spoke last of it."""
    world = driven()
    world.online(2, attributes={"model": "m2"})
    assert behind(world, "attributes.model") == "presence/1"
    assert behind(world, "attributes.fleet") == "presence/0"
    world.request("attributes", {"value": {"fleet": "paris"}})
    assert behind(world, "attributes.fleet") == "requests/1"


def test_a_cancel_for_an_absent_car_is_explained():
    """The withdrawal has a cause of its own beside the commands."""
    world = driven()
    ident, _ = world.order()
    world.cancel(ident)
    other, _ = world.order()
    assert behind(world, f"commands.cancels.{ident}") == "requests/2"
    assert behind(world, "commands.last.id") == "requests/3"
    assert other in shown(world)["commands"]["open"]


def test_the_answer_says_where_it_was_found():
    """Path as a pointer, value, revision and a sentence."""
    found = explain(shown(driven()), "attributes.fleet")
    assert (found["path"], found["value"]) == ("/attributes/fleet", "berlin")
    assert (found["vehicle_id"], found["revision"]) == ("car-1", 5)
    assert found["how"]


def test_an_unknown_path_is_told_what_there_is():
    """Named members of the part that it leads to."""
    with pytest.raises(PathNotFound, match="coolant_temp, speed"):
        explain(shown(driven()), "reported.tire_pressure")


def test_a_document_older_than_its_causes_says_so():
    """record is null rather than a guess; signals have their own offsets."""
    document = shown(driven())
    del document["causes"]
    assert explain(document, "presence.state")["record"] is None
    assert explain(document, "reported.speed")["record"]["offset"] == 1

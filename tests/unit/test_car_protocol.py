"""The car's side of the MQTT contract."""

import orjson
import pytest

from twin.client.car import Car
from twin.wire.errors import Malformed, Misaddressed

NOW = 1_790_000_000_000
ATTRIBUTES = {"fleet": "berlin", "model": "m1", "firmware": "2000", "vin": "CARTWIN0000000001"}


def make_car(**options):
    car = Car("car-000001", ATTRIBUTES, **options)
    car.connect(NOW)
    return car


def read(publish):
    return orjson.loads(publish.payload)


def command(**fields):
    full = {"id": "c1", "name": "ping", "args": {}, "issued_at": NOW, "expires_at": NOW + 60_000}
    return orjson.dumps({**full, **fields})


def send(car, payload, now=NOW):
    return [read(p) for p in car.receive("vehicles/car-000001/commands", payload, now)]


def desire(car, payload, now=NOW):
    published = car.receive("vehicles/car-000001/desired", orjson.dumps(payload), now)
    return [read(p) for p in published]


def test_a_vehicle_id_that_the_contract_forbids_is_refused():
    """A car cannot be made with an id that no topic accepts."""
    with pytest.raises(Misaddressed, match="vehicle id"):
        Car("car/1", ATTRIBUTES)


def test_the_will_says_offline_with_the_session_that_is_about_to_begin():
    """The last will is a retained offline status of the new session, whose number is the time."""
    car = Car("car-000001", ATTRIBUTES)
    will = car.connect(NOW)
    assert (will.topic, will.retain, will.qos) == ("vehicles/car-000001/status", True, 1)
    assert read(will) == {"state": "offline", "session": NOW}


def test_birth_and_configuration_open_a_session():
    """After CONNECT a car says online with its attributes, then what it is configured to."""
    birth, reported = make_car(interval_s=2.0).connected(NOW + 5)
    assert (birth.topic, birth.retain) == ("vehicles/car-000001/status", True)
    assert read(birth) == {
        "state": "online",
        "session": NOW,
        "at": NOW + 5,
        "attributes": ATTRIBUTES,
    }
    assert (reported.topic, reported.retain) == ("vehicles/car-000001/reported", False)
    assert read(reported)["properties"] == {"telemetry_interval_s": 2.0}
    assert "desired_version" not in read(reported)


def test_telemetry_is_numbered_within_the_session():
    """Sequence numbers rise by one and begin again at 1 in the next session."""
    car = make_car()
    car.connected(NOW)
    first, second = (car.telemetry(NOW + at, {"coolant_temp": 91.2}) for at in (1, 2))
    assert first.topic == "vehicles/car-000001/telemetry"
    assert read(first) == {
        "event_time": NOW + 1,
        "session": NOW,
        "sequence": 1,
        "coolant_temp": 91.2,
    }
    assert (second.sequence, second.qos, second.retain) == (2, 1, False)
    car.connect(NOW + 1000)
    car.connected(NOW + 1000)
    assert read(car.telemetry(NOW + 1001, {"speed": 1.0}))["sequence"] == 1


def test_a_session_number_always_rises():
    """Two connects within one millisecond, or a clock set back, still give a higher session."""
    car = make_car()
    car.connect(NOW)
    assert car.session == NOW + 1
    car.connect(NOW - 5000)
    assert car.session == NOW + 2


def test_goodbye_is_a_retained_offline_status_of_this_session():
    """A wanted disconnect is told before it happens."""
    goodbye = make_car().goodbye(NOW + 9)
    assert goodbye.retain
    assert read(goodbye) == {"state": "offline", "session": NOW, "at": NOW + 9}


def test_a_desired_interval_is_applied_and_confirmed():
    """A known property is applied and reported under the version that asked for it."""
    car = make_car()
    (reported,) = desire(car, {"version": 3, "delta": {"telemetry_interval_s": 5}})
    assert car.interval_s == 5
    assert reported["desired_version"] == 3
    assert reported["properties"] == {"telemetry_interval_s": 5}
    assert (reported["session"], reported["event_time"]) == (NOW, NOW)


def test_a_property_the_car_does_not_know_is_not_confirmed():
    """A car confirms only what it applied."""
    delta = {"seat_heating": 3, "telemetry_interval_s": 2}
    (reported,) = desire(make_car(), {"version": 1, "delta": delta})
    assert reported["properties"] == {"telemetry_interval_s": 2}
    (reported,) = desire(make_car(), {"version": 1, "delta": {"seat_heating": 3}})
    assert reported["properties"] == {}


@pytest.mark.parametrize("wanted", [0.05, 3601, -1, "fast", True, [1]])
def test_an_unusable_interval_is_not_applied_and_the_real_one_is_reported(wanted):
    """What the car cannot do shows as the value it has."""
    car = make_car()
    (reported,) = desire(car, {"version": 1, "delta": {"telemetry_interval_s": wanted}})
    assert car.interval_s == 1.0
    assert reported["properties"] == {"telemetry_interval_s": 1.0}


@pytest.mark.parametrize("wanted", [0.1, 3600])
def test_both_ends_of_the_interval_range_are_accepted(wanted):
    """0.1 s and 3600 s are in the range."""
    car = make_car()
    desire(car, {"version": 1, "delta": {"telemetry_interval_s": wanted}})
    assert car.interval_s == wanted


def test_null_takes_a_property_back_to_its_default():
    """RFC 7396: null removes the wish."""
    car = make_car(interval_s=2.0)
    desire(car, {"version": 1, "delta": {"telemetry_interval_s": 9}})
    (reported,) = desire(car, {"version": 2, "delta": {"telemetry_interval_s": None}})
    assert reported["properties"] == {"telemetry_interval_s": 2.0}


def test_an_older_desired_version_is_ignored_and_the_same_is_confirmed_again():
    """Versions order the wishes of a session; a repeated wish means the answer was lost."""
    car = make_car()
    desire(car, {"version": 4, "delta": {"telemetry_interval_s": 4}})
    assert desire(car, {"version": 3, "delta": {"telemetry_interval_s": 3}}) == []
    (again,) = desire(car, {"version": 4, "delta": {"telemetry_interval_s": 4}}, NOW + 9)
    assert (again["desired_version"], again["properties"]) == (4, {"telemetry_interval_s": 4})
    assert again["sequence"] == 2
    assert car.interval_s == 4


def test_the_same_version_may_say_more():
    """A second part of the same desired version is applied, too."""
    car = make_car()
    desire(car, {"version": 4, "delta": {"seat_heating": 1}})
    (reported,) = desire(car, {"version": 4, "delta": {"telemetry_interval_s": 7}})
    assert (car.interval_s, reported["properties"]) == (7, {"telemetry_interval_s": 7})


def test_a_new_session_hears_the_twin_anew():
    """A twin that was deleted and made again counts from 1; the car follows in its next session."""
    car = make_car()
    desire(car, {"version": 9, "delta": {"telemetry_interval_s": 9}})
    car.connect(NOW + 1000)
    (reported,) = desire(car, {"version": 1, "delta": {"telemetry_interval_s": 3}})
    assert (car.interval_s, reported["desired_version"]) == (3, 1)


def test_a_ping_is_answered_at_once():
    """ping goes through all states in one breath."""
    outcomes = send(make_car(), command())
    states = [outcome["state"] for outcome in outcomes]
    assert states == ["received", "accepted", "running", "succeeded"]
    assert {outcome["command_id"] for outcome in outcomes} == {"c1"}
    assert {outcome["at"] for outcome in outcomes} == {NOW}


def test_limit_power_takes_its_time_and_then_holds():
    """limit_power runs 2 s with progress; the power limit holds from its success on."""
    car = make_car()
    assert car.next_at is None
    started = send(car, command(name="limit_power", args={"factor": 0.5}))
    assert [o["state"] for o in started] == ["received", "accepted", "running"]
    assert car.next_at == NOW + 1000
    assert car.due(NOW + 999) == []
    (half,) = car.due(NOW + 1000)
    assert (read(half)["state"], read(half)["progress"]) == ("running", 0.5)
    assert car.power_limit == 1.0
    (end,) = car.due(NOW + 2000)
    assert (read(end)["state"], read(end)["at"]) == ("succeeded", NOW + 2000)
    assert (car.power_limit, car.next_at) == (0.5, None)


def test_restore_power_lifts_the_limit():
    """restore_power brings full power back."""
    car = make_car(durations_ms={"limit_power": 0, "restore_power": 0})
    send(car, command(id="a", name="limit_power", args={"factor": 0.3}))
    assert car.power_limit == 0.3
    send(car, command(id="b", name="restore_power"))
    assert car.power_limit == 1.0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"expires_at": NOW}, "expired"),
        ({"expires_at": None}, "bad_request: expires_at"),
        ({"name": "fly"}, "unknown_command"),
        ({"name": None}, "unknown_command"),
        ({"name": {"a": 1}}, "unknown_command"),
        ({"args": [1]}, "a JSON object is accepted"),
        ({"args": {"loud": True}}, "ping accepts no arguments"),
        ({"name": "limit_power", "args": {}}, "factor, a number from 0.1 to 1"),
        ({"name": "limit_power", "args": {"factor": 0.05}}, "factor, a number from 0.1 to 1"),
        ({"name": "limit_power", "args": {"factor": True}}, "factor, a number from 0.1 to 1"),
        ({"name": "limit_power", "args": {"factor": "0.5"}}, "factor, a number from 0.1 to 1"),
    ],
)
def test_a_command_the_car_cannot_take_is_rejected_with_its_reason(fields, reason):
    """A rejection says why, and what is accepted where there is a choice."""
    (outcome,) = send(make_car(), command(**fields))
    assert outcome["state"] == "rejected"
    assert reason in outcome["reason"]


def test_a_finished_command_that_comes_again_is_answered_but_not_run_again():
    """The same id repeats the last outcome, byte for byte."""
    car = make_car(durations_ms={"limit_power": 0})
    payload = command(name="limit_power", args={"factor": 0.5})
    *_, end = car.receive("vehicles/car-000001/commands", payload, NOW)
    send(car, command(id="c2", name="restore_power"))
    car.due(NOW + 2000)
    (again,) = car.receive("vehicles/car-000001/commands", payload, NOW + 5000)
    assert again.payload == end.payload
    assert car.power_limit == 1.0


def test_a_running_command_that_comes_again_says_where_it_is():
    """A repeat in the middle neither restarts nor delays the command."""
    car = make_car()
    payload = command(name="flash_lights")
    send(car, payload)
    (again,) = send(car, payload, NOW + 100)
    assert (again["state"], again["at"]) == ("running", NOW)
    assert car.next_at == NOW + 500


def test_a_repeat_after_expiry_still_says_what_became_of_the_command():
    """Expiry refuses a command that was not taken, not the memory of one that was."""
    car = make_car()
    send(car, command())
    (again,) = send(car, command(), NOW + 120_000)
    assert again["state"] == "succeeded"


def test_cancel_ends_a_running_command_without_its_effect():
    """A cancelled limit_power fails as cancelled and leaves full power."""
    car = make_car()
    send(car, command(name="limit_power", args={"factor": 0.5}))
    (outcome,) = send(car, orjson.dumps({"id": "c1", "cancel": True}), NOW + 10)
    assert (outcome["state"], outcome["reason"]) == ("failed", "cancelled")
    assert car.due(NOW + 10_000) == []
    assert car.power_limit == 1.0


def test_cancel_of_a_finished_command_repeats_how_it_ended():
    """What has happened cannot be cancelled."""
    car = make_car()
    send(car, command())
    (outcome,) = send(car, orjson.dumps({"id": "c1", "cancel": True}), NOW + 10)
    assert outcome["state"] == "succeeded"


def test_a_cancel_that_overtakes_its_command_keeps_it_from_running():
    """The command is rejected when it arrives after its cancel."""
    car = make_car()
    (early,) = send(car, orjson.dumps({"id": "c1", "cancel": True}))
    (late,) = send(car, command(), NOW + 10)
    assert (early["state"], early["reason"]) == ("rejected", "cancelled")
    assert late == early


def test_a_car_works_on_a_bounded_number_of_commands():
    """The seventeenth command at the same time is rejected as busy."""
    car = make_car()
    states = [send(car, command(id=f"c{n}", name="flash_lights"))[-1]["state"] for n in range(17)]
    assert states == ["running"] * 16 + ["rejected"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b'{"name":"ping"}',
        b'{"id":7}',
        b'{"id":""}',
        b'{"id":"' + b"x" * 129 + b'"}',
    ],
)
def test_a_command_that_cannot_be_answered_is_an_error_of_its_sender(payload):
    """Without a usable id there is nobody to answer."""
    with pytest.raises(Malformed):
        make_car().receive("vehicles/car-000001/commands", payload, NOW)


@pytest.mark.parametrize(
    "payload",
    [b"x", b"{}", b'{"version":1}', b'{"version":"1","delta":{}}', b'{"version":1,"delta":[]}',
     b'{"version":-1,"delta":{}}'],
)  # fmt: skip
def test_desired_that_cannot_be_read_changes_nothing(payload):
    """A message without version or delta is an error naming what is accepted."""
    car = make_car()
    with pytest.raises(Malformed):
        car.receive("vehicles/car-000001/desired", payload, NOW)
    assert car.interval_s == 1.0


def test_a_topic_the_car_did_not_subscribe_to_is_named():
    """A message of another car is refused."""
    with pytest.raises(Malformed, match="car-000002"):
        make_car().receive("vehicles/car-000002/commands", command(), NOW)

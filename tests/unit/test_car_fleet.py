"""The parts of the fleet that need no MQTT: options, physics, log, ids."""

import argparse
import shutil

import orjson
import pytest

import fleet_options
from car_log import FLUSH_BYTES, CarLog
from drive import Drive, Plan
from fleet import Fleet
from twin.local import ca

START = 1_790_000_000_000


def plan(**changes):
    usual = {
        "cars": 10, "seed": 1, "interval_s": 1.0, "acceleration": 1440.0, "degraded": 0.2,
        "onset_s": 2.0, "onset_spread_s": 3.0, "life_days": 0.05, "life_spread_days": 0.0,
    }  # fmt: skip
    return Plan(**{**usual, **changes})


def parsed(*arguments, num_users=4):
    parser = argparse.ArgumentParser()
    fleet_options.add(parser)
    options = parser.parse_args(arguments)
    options.num_users = num_users
    return options


def make_fleet(tmp_path, *arguments, host=None, worker_index=0, num_users=4):
    options = parsed("--cars-log", str(tmp_path), *arguments, num_users=num_users)
    return Fleet(options, host, worker_index)


def log_lines(tmp_path):
    (path,) = tmp_path.glob("*.jsonl")
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_physics_is_stepped_on_the_grid_of_the_clock():
    """A row changes when its interval is over, and a pause is caught up."""
    drive = Drive(plan(), START)
    first = drive.row(0)
    assert drive.advance(drive.next_ms - 1) == []
    assert drive.row(0) is first
    drive.advance(START + 10_000)
    assert drive.row(0) != first
    assert drive.next_ms == START + 11_000


def test_a_row_is_plain_numbers_of_known_resolution():
    """Signals go into JSON: whole numbers as int, others without float32 noise."""
    row = Drive(plan(), START).row(3)
    assert isinstance(row["tire_pressure_1_1"], int)
    assert all(type(value) in (int, float) for value in row.values())
    assert orjson.loads(orjson.dumps(row)) == row
    assert all(round(value, 4) == value for value in row.values())


def test_faults_begin_and_end_as_planned():
    """As many cars as planned degrade; each begins after its onset and then fails."""
    drive = Drive(plan(), START)
    changes = drive.advance(START + 60_000)
    truths = [truth for truth in drive.truth() if truth.mode is not None]
    assert len(truths) == 2
    assert {truth.vehicle for truth in truths} == {truth.vehicle for truth in changes}
    for truth in truths:
        assert 2.0 <= truth.onset_s <= 5.0
        assert truth.onset_s < truth.failure_s <= 60.0


def test_a_power_limit_delays_the_failure_of_the_limited_car_only():
    """limit reaches the physics of one car."""
    free, limited = Drive(plan(degraded=1.0), START), Drive(plan(degraded=1.0), START)
    limited.limit(4, 0.1)
    failures = []
    for drive in (free, limited):
        drive.advance(START + 8_000)
        failures.append({truth.vehicle: truth.failure_s for truth in drive.truth()})
    assert failures[1][4] > failures[0][4]


@pytest.mark.parametrize(
    ("text", "cars", "share"),
    [("0", 5, 0.0), ("20", 200, 0.1), ("200", 200, 1.0), ("10%", 7, 0.1), ("100%", 1, 1.0)],
)
def test_degraded_is_a_number_of_cars_or_a_percentage(text, cars, share):
    """20 means 20 cars, 10% a tenth of them."""
    options = parsed("--degraded", text, num_users=cars)
    assert fleet_options.plan(options, 0).degraded == share


@pytest.mark.parametrize(
    "arguments",
    [
        ("--degraded", "1.5"), ("--degraded", "101%"), ("--degraded", "few"), ("--interval", "0"),
        ("--interval", "nan"), ("--acceleration", "-1"), ("--onset-s", "inf"), ("--seed", "-1"),
        ("--seed", "x"), ("--fleet", "a,,b"), ("--mqtt", "3"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_accepted_says_what_is(arguments, capsys):
    """Wrong options end with usage, the option's name and what is accepted."""
    with pytest.raises(SystemExit) as stopped:
        parsed(*arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert arguments[0] in error
    assert "accepted" in error or "up to" in error


def test_more_degraded_cars_than_cars_are_refused():
    """The number is checked against the cars of the process."""
    with pytest.raises(ValueError, match="--degraded '5'"):
        fleet_options.plan(parsed("--degraded", "5", num_users=4), 0)


def test_a_worker_must_know_how_many_cars_it_can_have():
    """A Locust worker has no --users of its own."""
    with pytest.raises(ValueError, match="--cars"):
        fleet_options.plan(parsed(num_users=None), 3)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:1883", "http://a:1", "mqtt://", "mqtt://a:x", "mqtts://a:1/path", "mqtt://a,b"],
)
def test_a_broker_address_that_is_not_accepted_is_named(host):
    """The form of a broker's address is part of the error."""
    with pytest.raises(ValueError, match="mqtt://host:port"):
        fleet_options.brokers(host)


def test_brokers_come_from_the_host_then_the_environment_then_the_default(monkeypatch):
    """--host wins over MQTT_URLS; several shards are separated by comma."""
    monkeypatch.delenv("MQTT_URLS", raising=False)
    assert fleet_options.brokers(None) == [("127.0.0.1", 1883, False)]
    monkeypatch.setenv("MQTT_URLS", "mqtt://a:1, mqtts://b")
    assert fleet_options.brokers("") == [("a", 1, False), ("b", 8883, True)]
    assert fleet_options.brokers("mqtt://c") == [("c", 1883, False)]


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority with certificates of three cars; the environment names no other."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name in ("MQTT_CA_FILE", "MQTT_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "ca"
    ca.init(folder, ["127.0.0.1"])
    for number in (1, 2, 3):
        ca.issue(folder, f"car-{number:06d}")
    return folder


def test_cars_under_tls_have_a_certificate_each(authority, tmp_path, monkeypatch):
    """Of the folder, by options or environment; at a plain broker a car has none."""
    told = ("--ca-file", str(authority / "ca.pem"), "--certificates", str(authority / "cars"))
    fleet = make_fleet(
        tmp_path / "log", *told, "--mqtt", "5", host="mqtts://a,mqtt://b", num_users=3
    )
    assert fleet.mqtt_version == 5
    assert fleet.tls(1) is None
    made = fleet.tls(0)
    assert (made.check_hostname, made.minimum_version.name) == (True, "TLSv1_2")
    assert made.get_ca_certs()[0]["subject"] == ((("commonName", "cartwin services"),),)
    fleet.close()
    monkeypatch.setenv("MQTT_CA_FILE", told[1])
    monkeypatch.setenv("MQTT_CERT_DIR", told[3])
    fleet = make_fleet(tmp_path / "log", host="mqtts://a", num_users=3)
    assert fleet.tls(2) is not None
    fleet.close()


def test_a_certificate_that_is_missing_is_named_before_anybody_drives(authority, tmp_path):
    """The file of the fourth car, and the command that makes it; a broken one when it is used."""
    told = ("--ca-file", str(authority / "ca.pem"), "--certificates", str(authority / "cars"))
    with pytest.raises(ValueError, match=r"car-000004\.pem is not there; `cartwin broker ca issue"):
        make_fleet(tmp_path / "log", *told, host="mqtts://a")
    (authority / "cars" / "car-000002.key").write_text("no key")
    fleet = make_fleet(tmp_path / "log", *told, host="mqtts://a", num_users=3)
    with pytest.raises(ValueError, match=r"car-000002\.key: a certificate and its key are needed"):
        fleet.tls(1)
    fleet.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--ca-file", "x"), "are for TLS: --host mqtts://host:port"),
        (("--certificates", "x"), "are for TLS: --host mqtts://host:port"),
    ],
)
def test_files_for_tls_want_a_broker_with_tls(tmp_path, arguments, sentence):
    """What would not be used is refused."""
    with pytest.raises(ValueError, match=sentence):
        make_fleet(tmp_path, *arguments, host="mqtt://a")


def test_an_authority_that_cannot_be_read_is_named(tmp_path):
    """Absent, or no certificate in it."""
    with pytest.raises(ValueError, match="absent: No such file"):
        make_fleet(tmp_path, "--ca-file", str(tmp_path / "absent"), host="mqtts://a")
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="empty: no certificate is in it"):
        make_fleet(tmp_path, "--ca-file", str(tmp_path / "empty"), host="mqtts://a")


def test_no_two_workers_drive_the_same_car(tmp_path):
    """Ids of a process follow from its worker index and --cars; its cars are shared over brokers."""
    ids = []
    for index in range(2):
        fleet = make_fleet(
            tmp_path / str(index), "--cars", "3", host="mqtt://a:1,mqtt://b:2", worker_index=index
        )
        ids += [fleet.car(number).vehicle_id for number in range(3)]
        assert [fleet.broker(number)[0] for number in range(3)] == ["a", "b", "a"]
        fleet.close()
    assert ids == [f"car-{number:06d}" for number in range(1, 7)]


def test_cars_are_handed_out_once_and_taken_again_lowest_first(tmp_path):
    """A car that is given back is the next to be driven; beyond the last there is none."""
    fleet = make_fleet(tmp_path)
    assert [fleet.take() for _ in range(5)] == [0, 1, 2, 3, None]
    fleet.give_back(2)
    fleet.give_back(1)
    assert fleet.take() == 1
    fleet.close()


def test_a_store_tells_the_log_what_it_lets_go(tmp_path):
    """--store gives each car one of its own; without it there is none."""
    fleet = make_fleet(tmp_path, "--store", "2", "--store-silence-s", "0.5")
    stores = [fleet.car(index).store for index in range(2)]
    for number in (1, 2, 3):
        stores[0].keep(7, number, b"{}", 0)
    stores[0].covered(7, 2, 10)
    assert (len(stores[0]), len(stores[1]), stores[0].next_at) == (1, 0, 510)
    fleet.close()
    named = {"v": "car-000001", "session": 7}
    assert log_lines(tmp_path) == [
        {"e": "dropped", **named, "number": 1},
        {"e": "covered", **named, "number": 2},
    ]
    without = make_fleet(tmp_path / "without")
    assert without.car(0).store is None
    without.close()


def test_the_log_closes_with_the_truth_about_every_driven_car(tmp_path):
    """A car that never drove is not in the log."""
    fleet = make_fleet(tmp_path, "--degraded", "4", "--onset-s", "0", "--onset-spread-s", "0")
    fleet.take()
    fleet.take()
    fleet.drive.advance(fleet.drive.start_ms + 3000)
    fleet.close()
    lines = log_lines(tmp_path)
    assert [(line["e"], line["v"]) for line in lines] == [
        ("truth", "car-000001"),
        ("truth", "car-000002"),
    ]
    assert all(line["onset"] == fleet.drive.start_ms for line in lines)
    assert all(line["failure"] > line["onset"] for line in lines)


def test_a_running_fleet_tells_faults_as_they_begin(tmp_path):
    """Onset is in the log before the end, so a killed fleet leaves it."""
    fleet = make_fleet(tmp_path, "--degraded", "4", "--onset-s", "0", "--onset-spread-s", "0")
    fleet.take()

    class Enough(Exception):
        pass

    def sleep(seconds):
        assert 0 <= seconds <= 1
        raise Enough

    fleet.drive.start_ms -= 5000
    with pytest.raises(Enough):
        fleet.run(sleep)
    assert [line["v"] for line in log_lines(tmp_path)] == ["car-000001"]
    fleet.close()


def test_log_lines_are_buffered_but_never_without_bound(tmp_path):
    """Lines wait for flush, or until there are many."""
    path = tmp_path / "log" / "cars.jsonl"
    log = CarLog(path)
    log.write("sent", "car-000001", sequence=1)
    assert path.read_bytes() == b""
    log.flush()
    assert orjson.loads(path.read_bytes()) == {"e": "sent", "v": "car-000001", "sequence": 1}
    log.write("sent", "x" * FLUSH_BYTES)
    assert len(path.read_bytes()) > FLUSH_BYTES
    log.close()


def test_cars_have_attributes_and_phases(tmp_path):
    """Fleet names are shared out, vins have 17 characters, phases spread over the interval."""
    fleet = make_fleet(tmp_path, "--fleet", "a, b", "--interval", "2")
    cars = [fleet.car(index) for index in range(4)]
    assert {car.attributes["fleet"] for car in cars} == {"a", "b"}
    assert {len(car.attributes["vin"]) for car in cars} == {17}
    assert len({car.attributes["vin"] for car in cars}) == 4
    assert [fleet.phase_s(index) for index in range(4)] == [0, 0.5, 1.0, 1.5]
    assert cars[0].interval_s == 2.0
    fleet.close()

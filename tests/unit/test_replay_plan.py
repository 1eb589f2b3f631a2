"""What must come out of a replay: counts, suspects, rejections, last values."""

import struct
from pathlib import Path

import orjson
import pytest

from twin.client import replay_plan
from twin.client.replay import check_clock
from twin.client.replay_plan import Plan, Suspicion, Vehicle, make, stored
from twin.client.replay_source import BadRecording, Source
from twin.wire.codec import decode_telemetry, encode_telemetry, read_payload

HEAD = "time,car,coolant_temp,battery_percentage,tire_pressure_1_1\n"
SEED = HEAD + (
    "10,car1,90.1,0.5,32\n"
    "10,car2,80,-0.1,31\n"
    "20,car1,300,-29.9,\n"
    "20,car2,1976.5,,30\n"
    "30,car3,,,32.5\n"
    "30,car1,,,33\n"
)


def plan(folder: Path, *texts: str, mode: str = "warn", start: int = 0) -> Plan:
    found = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.csv"
        path.write_text(text)
        found.append(Source(path.name, path.stem, path))
    return make(found, start, mode)


def test_warn_keeps_suspect_rows_and_counts_them_by_signal(tmp_path):
    """Suspect rows, and per signal how many values are impossible and which is the worst."""
    made = plan(tmp_path, SEED)
    assert (made.rows, made.suspect, made.accepted) == (6, 3, 5)
    assert made.by_signal == {
        "battery_percentage": Suspicion(2, -29.9),
        "coolant_temp": Suspicion(2, 1976.5),
    }
    # Car 3 said nothing but half a psi, which no integer signal can hold.
    assert made.by_reason == {"empty": 1}


def test_enforce_expects_suspect_rows_to_be_rejected(tmp_path):
    """rows = accepted + rejected by reason, as the uplink would say it."""
    made = plan(tmp_path, SEED, mode="enforce")
    assert made.by_reason == {"out_of_range": 3, "bad_type": 1}
    assert made.accepted + sum(made.by_reason.values()) == made.rows == 6
    assert made.vehicles["car1"].expected() == {
        "coolant_temp": stored("coolant_temp", 90.1),
        "battery_percentage": 0.5,
        "tire_pressure_1_1": 33,
    }
    assert made.vehicles["car3"].accepted == 0


def test_the_expected_twin_has_the_last_present_value_of_each_signal(tmp_path):
    """A blank cell leaves the value before it; floats are expected as float32."""
    made = plan(tmp_path, SEED)
    assert made.vehicles["car1"].expected() == {
        "coolant_temp": 300.0,
        "battery_percentage": struct.unpack("f", struct.pack("f", -29.9))[0],
        "tire_pressure_1_1": 33,
    }
    assert made.vehicles["car1"].expected()["battery_percentage"] != -29.9
    assert made.vehicles["car2"].expected()["tire_pressure_1_1"] == 30


def test_a_later_row_with_an_older_time_does_not_win():
    """The fold goes by event time, then by row number, as law 1 does."""
    vehicle = Vehicle()
    vehicle.fold(2000, 1, {"speed": 1.0})
    vehicle.fold(1000, 2, {"speed": 2.0, "coolant_temp": 3.0})
    vehicle.fold(2000, 3, {"speed": 4.0})
    assert vehicle.expected() == {"speed": 4.0, "coolant_temp": 3.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 20.1),
        ("coolant_temp", -273.15),
        ("control_unit_firmware", 999_999_999),
        ("tire_pressure_1_1", 32.0),
    ],
)
def test_stored_is_what_telemetry_keeps(name, value):
    """The expectation agrees with the codec of topic telemetry, bit for bit."""
    payload = orjson.dumps({"event_time": 1, "session": 1, "sequence": 1, name: value})
    read = read_payload(payload, vehicle_id="car1", ingested_at=1, counter=0, mode="off")
    assert decode_telemetry(encode_telemetry(read)).signals[name] == stored(name, value)


def test_messages_carry_time_session_and_row_number(tmp_path):
    """Session = first event time of the replay; sequence counts from 1 within a vehicle."""
    made = plan(tmp_path, SEED)
    assert made.session == 10_000
    sent = [(vehicle, at, orjson.loads(payload)) for vehicle, at, payload in made.messages()]
    assert len(sent) == 6
    assert sent[2] == (
        "car1",
        20_000,
        {
            "event_time": 20_000,
            "session": 10_000,
            "sequence": 2,
            "coolant_temp": 300.0,
            "battery_percentage": -29.9,
        },
    )


def test_a_second_replay_sends_the_same_bytes(tmp_path):
    """Nothing of a message depends on when it is replayed."""
    assert list(plan(tmp_path, SEED).messages()) == list(plan(tmp_path, SEED).messages())


def test_the_first_event_time_is_the_smallest(tmp_path):
    """A recording whose times go back still has one session and one length."""
    made = plan(tmp_path, HEAD + "30,car1,1,,\n10,car1,2,,\n20,car1,3,,\n")
    assert (made.first, made.last) == (10_000, 30_000)


def test_faults_stop_a_replay_before_it_begins(tmp_path):
    """The first five faults are named and the others counted."""
    with pytest.raises(BadRecording) as caught:
        plan(tmp_path, HEAD + "1,car1,hot,,\n" * 7 + "2,car1,90,,\n")
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines[:5]] == [f"0.csv:{n}" for n in range(2, 7)]
    assert lines[5] == "and 2 more faults"


def test_a_header_without_rows_is_refused(tmp_path):
    """There is nothing to replay."""
    with pytest.raises(BadRecording, match="no rows"):
        plan(tmp_path, HEAD)


def test_two_files_that_name_the_same_vehicle_are_refused(tmp_path):
    """A recording without vehicle column is named by its file, so names must differ."""
    text = "ENGINE_RPM (),VEHICLE_SPEED (),COOLANT_TEMPERATURE ()\n1,2,3,\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "live1.csv").write_text(text)
    found = [
        Source(f"{folder}/live1.csv", "live1", tmp_path / folder / "live1.csv") for folder in "ab"
    ]
    with pytest.raises(BadRecording, match=r"b/live1\.csv and a/live1\.csv .* etios-live1"):
        make(found, 0, "warn")


def test_more_vehicles_than_memory_is_planned_for_are_refused(tmp_path, monkeypatch):
    """The number of cars is bounded."""
    monkeypatch.setattr(replay_plan, "MAX_VEHICLES", 2)
    with pytest.raises(BadRecording, match="more than 2 vehicles"):
        plan(tmp_path, HEAD + "1,car1,1,,\n1,car2,1,,\n1,car3,1,,\n")


def test_a_recording_that_grows_while_it_is_replayed_is_refused(tmp_path):
    """What is sent is what was planned, or the replay ends."""
    made = plan(tmp_path, HEAD + "1,car1,1,,\n")
    with (tmp_path / "0.csv").open("a") as out:
        out.write("2,car1,2,,\n")
    with pytest.raises(BadRecording, match="changed while it was replayed"):
        list(made.messages())


def test_rows_of_the_future_are_refused(tmp_path):
    """The uplink would reject them as clock_ahead; at recorded pace they are not ahead."""
    made = plan(tmp_path, HEAD + "10,car1,1,,\n110,car1,1,,\n")
    check_clock(made, 110_000, None)
    check_clock(made, 10_000, 1.0)
    with pytest.raises(BadRecording, match=r"90 s after .* --start"):
        check_clock(made, 10_000, 10.0)
    with pytest.raises(BadRecording, match="100 s after"):
        check_clock(made, 10_000, None)

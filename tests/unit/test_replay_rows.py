"""One CSV file -> rows: formats by header, cells, clock, faults with file and line."""

from pathlib import Path

import pytest

from twin.client.replay_rows import MAX_LINE_BYTES, Recording, Row, merged, recognise_file
from twin.client.replay_source import BadRecording, Source
from twin.wire.catalogue import BY_NAME
from twin.wire.columns import CAR_OBD, CARS, FORMATS

START = 1_577_836_800_000

# The header of carOBD (eron93br/carOBD), in its spelling.
OBD_COLUMNS = [
    "ENGINE_RUN_TINE",
    "ENGINE_RPM",
    "VEHICLE_SPEED",
    "THROTTLE",
    "ENGINE_LOAD",
    "COOLANT_TEMPERATURE",
    "LONG_TERM_FUEL_TRIM_BANK_1",
    "SHORT_TERM_FUEL_TRIM_BANK_1",
    "INTAKE_MANIFOLD_PRESSURE",
    "FUEL_TANK",
    "ABSOLUTE_THROTTLE_B",
    "PEDAL_D",
    "PEDAL_E",
    "COMMANDED_THROTTLE_ACTUATOR",
    "FUEL_AIR_COMMANDED_EQUIV_RATIO",
    "ABSOLUTE_BAROMETRIC_PRESSURE",
    "RELATIVE_THROTTLE_POSITION",
    "INTAKE_AIR_TEMP",
    "TIMING_ADVANCE",
    "CATALYST_TEMPERATURE_BANK1_SENSOR1",
    "CATALYST_TEMPERATURE_BANK1_SENSOR2",
    "CONTROL_MODULE_VOLTAGE",
    "COMMANDED_EVAPORATIVE_PURGE",
    "TIME_RUN_WITH_MIL_ON",
    "TIME_SINCE_TROUBLE_CODES_CLEARED",
    "DISTANCE_TRAVELED_WITH_MIL_ON",
    "WARM_UPS_SINCE_CODES_CLEARED",
]
OBD_HEADER = ",".join(f"{name} ()" for name in OBD_COLUMNS)
OBD_CELLS = [
    "12.0",
    "1500.0",
    "72.0",
    "20.0",
    "50.0",
    "84.0",
    "-3.125",
    "2.5",
    "77.0",
    "60.0",
    "41.5",
    "16.0",
    "30.5",
    "18.0",
    "1.0",
    "98.0",
    "4.0",
    "37.0",
    "-5.0",
    "365.5",
    "280.25",
    "13.75",
    "8.0",
    "0.0",
    "512.0",
    "0.0",
    "40.0",
]
OBD_ROW = ", ".join(OBD_CELLS) + ",\r\n"
OBD_SIGNALS = {
    "engine_run_time": 12.0,
    "engine_speed": 1500.0,
    "speed": 20.0,
    "throttle_pos": 0.2,
    "engine_load": 0.5,
    "coolant_temp": 84.0,
    "long_fuel_trim": -0.03125,
    "short_fuel_trim": 0.025,
    "manifold_pressure": 77.0,
    "fuel_level": 0.6,
    "pedal_pos": 0.16,
    "barometric_pressure": 98.0,
    "intake_air_temp": 37.0,
    "timing_advance": -5.0,
    "catalyst_temp_1": 365.5,
    "catalyst_temp_2": 280.25,
    "control_module_voltage": 13.75,
}


def source(folder: Path, name: str, content: str | bytes) -> Source:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(name, path.stem, path)


def recording(folder: Path, name: str, content: str | bytes) -> Recording:
    return recognise_file(source(folder, name, content))


def rows(*recordings: Recording, start: int = START) -> list[tuple[Row, int]]:
    def unexpected(sentence: str) -> None:
        raise AssertionError(sentence)

    return list(merged(recordings, start, unexpected))


def faults(one: Recording) -> tuple[list[Row], list[str]]:
    found: list[str] = []
    kept = [row for row, _ in merged([one], START, found.append)]
    return kept, found


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_mapped_column_is_a_signal_of_the_catalogue(form):
    """A map names only existing signals, and no signal twice."""
    signals = [column.signal for column in form.columns.values()]
    assert set(signals) <= set(BY_NAME)
    assert len(signals) == len(set(signals))


def test_the_carobd_map_covers_its_header(tmp_path):
    """17 of the 27 columns carry signals; the other 10 are listed as ignored."""
    one = recording(tmp_path, "live1.csv", OBD_HEADER + "\n")
    assert one.form is CAR_OBD
    assert one.names == tuple(OBD_COLUMNS)
    assert set(one.names) - set(one.ignored) == set(CAR_OBD.columns)
    assert len(one.ignored) == 10


def test_a_carobd_row_becomes_signals_in_the_catalogues_units(tmp_path):
    """km/h becomes m/s, percent becomes a share, and the trailing comma is no column."""
    ((row, number),) = rows(recording(tmp_path, "live1.csv", OBD_HEADER + "\r\n" + OBD_ROW))
    assert (row.vehicle_id, row.event_time, number) == ("etios-live1", START, 1)
    assert row.signals == pytest.approx(OBD_SIGNALS)


def test_a_recording_without_clock_has_one_row_a_second_from_its_start(tmp_path):
    """Event time = start + row number in seconds; blank lines are no rows."""
    text = OBD_HEADER + "\n" + OBD_ROW + "\n" + OBD_ROW + "  \n" + OBD_ROW
    found = rows(recording(tmp_path, "idle1.csv", text), start=5_000)
    assert [(row.event_time, number) for row, number in found] == [
        (5_000, 1),
        (6_000, 2),
        (7_000, 3),
    ]


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        (OBD_CELLS, ()),
        (OBD_CELLS[:24], ()),
        (OBD_CELLS[:21], ("control_module_voltage",)),
        (
            [*OBD_CELLS[:16], " "],
            tuple(list(OBD_SIGNALS)[-5:]),
        ),
        (["", *OBD_CELLS[1:]], ("engine_run_time",)),
        ([*OBD_CELLS, "", " "], ()),
    ],
    ids=["no comma", "24 of 27", "21 of 27", "cut in a cell", "blank cell", "blank cells behind"],
)
def test_a_blank_or_missing_cell_is_an_absent_signal(tmp_path, cells, missing):
    """A short row lacks exactly the signals of the cells that are not there."""
    text = OBD_HEADER + "\n" + ",".join(cells)
    ((row, _),) = rows(recording(tmp_path, "live6.csv", text))
    assert set(OBD_SIGNALS) - set(row.signals) == set(missing)


def test_seed_cars_have_vehicle_and_clock_in_the_row(tmp_path):
    """Event time = time x 1000; rows are numbered from 1 within each vehicle."""
    text = (
        "time,car,coolant_temp,speed,tire_pressure_1_1,control_unit_firmware\n"
        "1567606196,car1,39.5,24.9,32,2000\n"
        "1567606196,car2,27.25,6.5,31,2000\n"
        "1567606197,car1,40,25,32,2000\n"
    )
    one = recording(tmp_path, "seed.csv", text)
    assert one.form is CARS
    assert one.ignored == ()
    found = rows(one)
    assert [(row.vehicle_id, row.event_time, number) for row, number in found] == [
        ("car1", 1_567_606_196_000, 1),
        ("car2", 1_567_606_196_000, 1),
        ("car1", 1_567_606_197_000, 2),
    ]
    signals = found[2][0].signals
    assert signals == {
        "coolant_temp": 40.0,
        "speed": 25.0,
        "tire_pressure_1_1": 32,
        "control_unit_firmware": 2000,
    }
    assert type(signals["control_unit_firmware"]) is int
    assert type(signals["speed"]) is float


def test_a_column_without_signal_is_ignored_and_listed(tmp_path):
    """The demo's later label column does not stop a replay, and is not sent."""
    one = recording(tmp_path, "seed.csv", "time,car,speed,failure_occurred\n1,car1,2,false\n")
    assert one.ignored == ("failure_occurred",)
    assert rows(one)[0][0].signals == {"speed": 2.0}


def test_byte_order_mark_quotes_and_crlf_are_understood(tmp_path):
    """What spreadsheet programs write is the same recording."""
    text = '\ufeff"time","car","speed"\r\n"1.5","car1","2"\r\n'
    ((row, _),) = rows(recording(tmp_path, "seed.csv", text))
    assert row == Row("car1", 1500, {"speed": 2.0})


def test_recordings_are_merged_by_event_time(tmp_path):
    """Cars of different files drive side by side; within a file the order is kept."""
    head = "time,car,speed\n"
    first = recording(tmp_path, "a.csv", head + "1,a,1\n4,a,2\n3,a,3\n")
    second = recording(tmp_path, "b.csv", head + "2,b,1\n5,a,4\n")
    found = [
        (row.vehicle_id, row.event_time // 1000, number) for row, number in rows(first, second)
    ]
    assert found == [("a", 1, 1), ("b", 2, 1), ("a", 4, 2), ("a", 3, 3), ("a", 5, 4)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("7,car1,fast", "seed.csv:3: speed is 'fast'; a decimal number or nothing is accepted"),
        ("7,car1,nan", "speed is 'nan'"),
        ("7,car1,1e999", "speed is '1e999'"),
        ("7,car1,1_000", "speed is '1_000'"),
        ("noon,car1,2", "time is 'noon'; seconds since 1970 are accepted"),
        ("-1,car1,2", "time is '-1'"),
        (",car1,2", "time is ''"),
        ("7,,2", "vehicle id ''"),
        ("7,car/1,2", "vehicle id 'car/1' is not accepted"),
        ("7", "vehicle id ''"),
        ("7,car1,2,9", "4 cells under 3 columns; at most 3 are accepted"),
    ],
)
def test_a_wrong_cell_is_a_fault_with_file_and_line(tmp_path, line, said):
    """The row is left out, the fault says where and what is accepted, the others are kept."""
    text = f"time,car,speed\n6,car1,1\n{line}\n8,car1,3\n"
    kept, found = faults(recording(tmp_path, "seed.csv", text))
    assert [row.event_time for row in kept] == [6000, 8000]
    assert len(found) == 1
    assert found[0].startswith("seed.csv:3: ")
    assert said in found[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x.csv is empty"),
        (b"unit,cycle\n1,1\n", "x.csv:1: header 'unit, cycle' is of no known format"),
        (b"\n", "x.csv:1: header '' is of no known format"),
        (b"time,car,speed,speed\n", "x.csv:1: column 'speed' is there twice"),
        (b"\x7fELF\x02\x01\x00\xff\xfe", "x.csv:1: not text"),
        (b"time,car,speed" + b" " * MAX_LINE_BYTES, "x.csv:1: a line of more than"),
        (b'time,"car', "x.csv:1: not CSV"),
    ],
    ids=["empty", "unknown", "blank", "twice", "binary", "long line", "quote"],
)
def test_a_file_of_no_known_format_is_refused(tmp_path, content, said):
    """One sentence with file and line."""
    with pytest.raises(BadRecording) as caught:
        recording(tmp_path, "x.csv", content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_header_is_told_which_are_known(tmp_path):
    """The refusal lists the columns that would make the file one of each known format."""
    with pytest.raises(BadRecording) as caught:
        recording(tmp_path, "x.csv", "a,b\n")
    assert "cars: car, time" in str(caught.value)
    assert "carOBD: COOLANT_TEMPERATURE, ENGINE_RPM, VEHICLE_SPEED" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"time,car,speed\n1,car1,2\n2,\xff\xfe,3\n", "x.csv:3: not text"),
        (b"time,car,speed\n1,car1,2\n2,c" + b"a" * MAX_LINE_BYTES, "x.csv:3: a line of more than"),
        (b'time,car,speed\n1,car1,2\n2,"car1,3\n3,car1,4\n', "x.csv:3: not CSV"),
    ],
    ids=["binary", "long line", "quote"],
)
def test_damage_inside_a_file_is_named_with_its_line(tmp_path, content, said):
    """Bytes that are no CSV end the reading where they are."""
    one = recording(tmp_path, "x.csv", content)
    with pytest.raises(BadRecording) as caught:
        rows(one)
    assert said in str(caught.value)


def test_a_file_name_that_makes_no_vehicle_id_is_refused(tmp_path):
    """carOBD takes the vehicle's name from the file."""
    with pytest.raises(BadRecording, match="etios-my trip"):
        recording(tmp_path, "my trip.csv", OBD_HEADER + "\n")


def test_a_file_that_vanished_is_refused(tmp_path):
    """Reading is the first thing that can fail, and says so."""
    with pytest.raises(BadRecording, match=r"gone\.csv cannot be read"):
        recognise_file(Source("gone.csv", "gone", tmp_path / "gone.csv"))

"""`cartwin replay` against the real uplink and worker."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from twin.local import Endpoints, Options, Stack, running
from twin.local.options import FREE_PORTS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests/fixtures/replay"
OBD = (
    "ENGINE_RUN_TINE (),ENGINE_RPM (),VEHICLE_SPEED (),THROTTLE (),COOLANT_TEMPERATURE (),"
    "PEDAL_E ()\r\n"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def warn(data_dir: Path) -> Iterator[Endpoints]:
    """Kafka, Redis, MQTT, uplink (VALIDATION=warn) and worker."""
    stack = Stack(
        Options(
            data_dir=data_dir,
            ports=FREE_PORTS,
            processes=("uplink", "worker"),
            env={"VALIDATION": "warn"},
        )
    )
    yield stack.start()
    stack.stop()


def cartwin_replay(
    *arguments: object, stack: Endpoints | None = None, code: int = 0
) -> tuple[dict[str, object], str]:
    """Run the command in a process of its own; its JSON line and what it said to people."""
    addresses = {}
    if stack is not None:
        addresses = {"MQTT_URLS": ",".join(stack.mqtt), "KAFKA_BOOTSTRAP": stack.kafka}
    done = subprocess.run(
        [sys.executable, "-c", "from twin.cli import main; main()", "replay", "--json",
         *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **addresses}, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    return json.loads(lines[0]), done.stderr


def trips(folder: Path) -> Path:
    """Three trips as carOBD writes them: zeros first, trailing commas, a cut row, a blank line."""
    folder.mkdir()
    for trip in range(3):
        lines = [f"{n}.0, {800 + 10 * n}.25, {n % 90}.0, 17.6, {60 + n // 10}.0, 31.7,\r\n"
                 for n in range(200 + trip)]  # fmt: skip
        lines[150:] = [line.replace(", 31.7,\r\n", "\n") for line in lines[150:]]
        cut = ["210.0, 901.5, \r\n", "\r\n"]
        (folder / f"live{trip}.csv").write_text(OBD + "".join([*lines, *cut]), newline="")
    return folder


def test_a_stack_announces_its_validation_mode(warn, data_dir):
    """The mode told to the uplink is what replay reads from endpoints.json."""
    assert warn.validation == "warn"
    assert running(data_dir) == warn


def test_recorded_trips_become_twins(warn, tmp_path):
    """A folder of ragged trips: every row in Kafka, every twin equal, twice the same."""
    folder = trips(tmp_path / "trips")
    for _ in range(2):
        document, said = cartwin_replay(folder, stack=warn)
        assert document.pop("seconds") > 0
        assert document == {
            "ok": True, "rows": 606, "kafka": 606, "rejected": 0, "twins": 3, "equal": True,
            "duplicates": 0, "suspect": 0, "by_signal": {}, "by_reason": {},
        }  # fmt: skip
        assert "not sent, no signal for them: PEDAL_E" in said


def test_the_sample_of_cars_is_kept_and_marked(warn):
    """The seed file's format with all 18 signals: every twin equals its car, suspects included."""
    document, said = cartwin_replay(SAMPLES / "cars.csv", stack=warn)
    document.pop("seconds")
    assert document == {
        "ok": True, "rows": 48, "kafka": 48, "rejected": 0, "twins": 4, "equal": True,
        "duplicates": 0, "suspect": 5, "by_reason": {},
        "by_signal": {
            "battery_percentage": {"rows": 3, "worst": -0.75},
            "coolant_temp": {"rows": 2, "worst": 240.5},
        },
    }  # fmt: skip
    assert "not sent" not in said


def test_the_samples_of_carobd_become_twins_from_an_archive(warn, tmp_path):
    """carOBD's 27 columns, packed as its archive is: every row in Kafka, every twin equal."""
    archive = tmp_path / "trips.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(SAMPLES / "carobd", "trips")
    document, said = cartwin_replay(archive, stack=warn)
    document.pop("seconds")
    assert document == {
        "ok": True, "rows": 100, "kafka": 100, "rejected": 0, "twins": 2, "equal": True,
        "duplicates": 0, "suspect": 0, "by_signal": {}, "by_reason": {},
    }  # fmt: skip
    assert "not sent, no signal for them: ABSOLUTE_THROTTLE_B" in said


def test_an_uplink_that_keeps_is_no_uplink_that_rejects(warn, tmp_path):
    """Asked to enforce through an uplink that warns: exit code 1, and the setting is named."""
    path = tmp_path / "bad.csv"
    path.write_text("time,car,speed,coolant_temp\n1,bad1,500,90\n2,bad1,10,91\n")
    document, said = cartwin_replay(path, "--enforce", stack=warn, code=1)
    assert (document["ok"], document["kafka"], document["rejected"]) == (False, 2, 0)
    assert "does the uplink run with VALIDATION=enforce?" in " ".join(said.split())


def test_the_seed_cars_are_kept_and_marked(warn, shared):
    """10,000 rows of 100 cars, 9,410 of them suspect; every twin equals the last row."""
    document, said = cartwin_replay(shared / "data/seed-cars/car-sensor-data.csv", stack=warn)
    document.pop("seconds")
    assert document == {
        "ok": True, "rows": 10_000, "kafka": 10_000, "rejected": 0, "twins": 100, "equal": True,
        "duplicates": 0, "suspect": 9410, "by_reason": {},
        "by_signal": {
            "battery_percentage": {"rows": 9410, "worst": -29.926895},
            "coolant_temp": {"rows": 1886, "worst": 1976.5275},
        },
    }  # fmt: skip
    assert "coolant_temp: 1,886 rows, worst 1976.53 degC; -50 to 215 degC is possible" in said


def test_without_a_stack_it_brings_its_own(tmp_path):
    """--standalone starts uplink and worker in the mode asked for, and rejected rows add up."""
    path = tmp_path / "own.csv"
    rows = [f"{n},own{n % 4},{-0.5 if n % 5 == 0 else 0.5},{n}" for n in range(100)]
    path.write_text("\n".join(["time,car,battery_percentage,speed", *rows]))
    document, said = cartwin_replay(path, "--standalone", "--enforce")
    document.pop("seconds")
    assert document == {
        "ok": True, "rows": 100, "kafka": 80, "rejected": 20, "twins": 4, "equal": True,
        "duplicates": 0, "suspect": 20, "by_reason": {"out_of_range": 20},
        "by_signal": {"battery_percentage": {"rows": 20, "worst": -0.5}},
    }  # fmt: skip
    assert "100 rows = 80 accepted + 20 rejected (out_of_range 20)" in said


@pytest.mark.deep
@pytest.mark.timeout(900)
def test_all_trips_of_the_real_car(warn, shared):
    """The whole carOBD archive: 304,299 rows of 129 trips."""
    archive = shared / "data/carobd-etios/carOBD-obdiidata.tar.xz"
    document, _ = cartwin_replay(archive, stack=warn)
    assert (document["ok"], document["equal"]) == (True, True)
    assert (document["rows"], document["kafka"], document["twins"]) == (304_299, 304_299, 129)

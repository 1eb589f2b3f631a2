"""`cartwin broker` as a user meets it: what is written, what is refused, what is counted."""

import json

import pytest
from typer.testing import CliRunner

from twin.cli import app
from twin.local import refusals

MOSQUITTO = """\
2026-11-23T19:05:26: Denied PUBLISH from car-1 (d0, q1, r0, m5, 'vehicles/car-2/telemetry', ... (5 bytes))
2026-11-23T19:05:26: Received PUBLISH from car-1 (d0, q1, r0, m7, 'vehicles/car-1/status', ... (1 bytes))
2026-11-23T19:05:27: Denied PUBLISH from a car (d0, q0, r0, m0, 'x', ... (5 bytes))
2026-11-23T19:05:28: Denied PUBLISH from car-1 (d0, q1, r1, m3, 'x', ... (6 bytes))
"""
HIVEMQ = """\
2026-11-23 18:38:06,908 INFO  - Started TCP Listener on address 127.0.0.1 and on port 21883.
refused: car-1 wrote vehicles/car-2/telemetry (1 so far)
"""


def run(*words, **more):
    return CliRunner().invoke(app, ["broker", *words], **more)


def test_config_writes_the_files_and_says_what_is_kept(tmp_path):
    """One JSON line names files, messages and bytes; the files are there."""
    made = run("config", "--kind", "mosquitto", "--rate", "500", "--outage", "60",
               "--out", str(tmp_path / "new"), "--mode", "tls", "--tls", "made", "--json")  # fmt: skip
    assert made.exit_code == 0
    told = json.loads(made.stdout)
    assert told == {
        "files": [str(tmp_path / "new" / name) for name in ("mosquitto.conf", "acl")],
        "messages": 30_000,
        "bytes": 30_000 * 512,
    }
    assert "listener 8883 0.0.0.0" in (tmp_path / "new" / "mosquitto.conf").read_text()


def test_a_denied_vehicle_is_in_the_acl(tmp_path):
    """--deny may be repeated."""
    run("config", "--kind", "mosquitto", "--rate", "5", "--outage", "6", "--out", str(tmp_path),
        "--mode", "password", "--deny", "car-7", "--deny", "car-8")  # fmt: skip
    assert "user car-7\ntopic deny #\n\nuser car-8\n" in (tmp_path / "acl").read_text()


def test_paths_are_as_the_broker_sees_them(tmp_path):
    """--folder is where the files will be, --out where they are written."""
    run("config", "--kind", "mosquitto", "--rate", "5", "--outage", "6", "--out", str(tmp_path),
        "--folder", "/mosquitto/config")  # fmt: skip
    assert "persistence_location /mosquitto/config/" in (tmp_path / "mosquitto.conf").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "amqtt", "--mode", "tls", "--tls", "x"), "amqtt has no mode tls"),
        (("--kind", "mosquitto", "--mode", "tls"), "folder of certificates"),
        (("--kind", "mosquitto", "--host", "0.0.0.0"), "listens on 127.0.0.1 only"),
        (("--kind", "mosquitto", "--deny", "car-7"), "cannot deny a vehicle"),
    ],
)
def test_what_cannot_be_configured_is_wrong_usage(tmp_path, words, said):
    """Exit code 2, one sentence, nothing written."""
    asked = run("config", "--rate", "5", "--outage", "6", "--out", str(tmp_path / "x"), *words)
    assert asked.exit_code == 2
    assert said in " ".join(asked.output.split())
    assert not (tmp_path / "x").exists()


def test_refusals_are_counted_by_client():
    """From the log of either broker; other lines do not count."""
    assert refusals.count(MOSQUITTO.splitlines()) == {"car-1": 2, "a car": 1}
    assert refusals.count(HIVEMQ.splitlines()) == {"car-1": 1}
    told = run("refused", "-", input=MOSQUITTO)
    assert json.loads(told.stdout) == {"car-1": 2, "a car": 1}


def test_ca_says_in_a_sentence_what_is_wrong(tmp_path):
    """No vehicle id, no authority, no host: exit code 1."""
    for words, said in (
        (("issue", "uplink@cartwin"), "vehicle id 'uplink@cartwin' is not accepted"),
        (("issue", "car-1"), "make one with `cartwin broker ca init`"),
        (("init", "--host", "not a host"), "'not a host' is no host name"),
    ):
        asked = run("ca", *words, "--dir", str(tmp_path / "ca"))
        assert asked.exit_code == 1
        assert said in " ".join(asked.output.split())
    assert not (tmp_path / "ca").exists()

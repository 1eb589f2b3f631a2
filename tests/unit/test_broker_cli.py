"""`cartwin broker` as a user meets it: what is written, what is refused, what is counted."""

import json
import shutil
import socket

import pytest
from typer.testing import CliRunner

from twin.cli import app
from twin.kit import metrics
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


def test_a_log_that_is_not_there_is_named(tmp_path):
    """Exit code 2, one sentence."""
    asked = run("refused", str(tmp_path / "absent"))
    assert asked.exit_code == 2
    assert "absent: No such file or directory" in "".join(asked.output.splitlines())


def denied(client):
    return f"Denied PUBLISH from {client} (d0, q1, r0, m5, 'x', ... (5 bytes))\n"


def test_a_log_is_followed_from_now_on_over_rotations(tmp_path):
    """Moved away while its writer goes on with it, and cut to nothing: each line is read once."""
    log = tmp_path / "log"
    log.write_text(denied("before"))
    with refusals.Tail(log) as tail:

        def heard():
            return dict(refusals.count(tail.lines()))

        assert heard() == {}
        writer = log.open("a")
        print(denied("one"), end="", file=writer, flush=True)
        assert heard() == {"one": 1}
        log.rename(tmp_path / "log.1")
        log.touch()
        print(denied("late")[:9], end="", file=writer, flush=True)
        assert heard() == {}
        print(denied("late")[9:], end="", file=writer, flush=True)
        assert heard() == {"late": 1}
        print(denied("last").rstrip(), end="", file=writer, flush=True)
        writer.close()
        with log.open("a") as anew:
            anew.write(denied("new") * 2)
        assert heard() == {"last": 1, "new": 2}
        assert heard() == {}
        log.write_text(denied("cut"))
        assert heard() == {"cut": 1}
        log.unlink()
        assert heard() == {}
        log.write_text(denied("again"))
        assert heard() == {"again": 1}


def test_a_log_that_comes_later_is_read_from_its_start(tmp_path):
    """Until then there is nothing, and it is said."""
    log = tmp_path / "log"
    with refusals.Tail(log) as tail:
        assert (tail.there, list(tail.lines())) == (False, [])
        log.write_text(denied("first") + "x" * 200_000 + "\n" + denied("second"))
        assert refusals.count(tail.lines()) == {"first": 1, "second": 1}
        assert tail.there


def test_followed_refusals_are_a_line_each_and_a_metric_without_ids():
    """Of a pipe until its end; who it was is printed, the metric has the sum."""
    before = metrics.BROKER_REFUSED._value.get()
    told = run("refused", "-", "--follow", input=MOSQUITTO)
    assert told.exit_code == 0
    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {"client": "car-1", "refused": 1, "total": 1},
        {"client": "a car", "refused": 1, "total": 2},
        {"client": "car-1", "refused": 1, "total": 3},
    ]
    assert metrics.BROKER_REFUSED._value.get() == before + 3
    assert metrics.BROKER_REFUSED._labelnames == ()


def test_a_port_for_metrics_that_is_taken_is_named():
    """One sentence, exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        asked = run("refused", "-", "--metrics-port", port, input=MOSQUITTO)
    assert asked.exit_code == 1
    assert f"--metrics-port {port} on 127.0.0.1: " in " ".join(asked.output.split())
    assert "in use" in asked.output


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_certificates_of_many_cars_are_made_once(tmp_path):
    """By number and by a file of ids; who has one is passed over, a wrong id makes none."""
    folder = tmp_path / "ca"
    assert run("ca", "init", "--dir", str(folder), "--host", "127.0.0.1").exit_code == 0
    first = run("ca", "issue", "--vehicles", "3", "--dir", str(folder))
    assert "3 made, 0 were there" in first.output
    kept = (folder / "cars" / "car-000002.pem").read_bytes()
    again = run("ca", "issue", "--ids", "-", "--dir", str(folder), input="car-000002\n\na.b\n")
    assert "1 made, 1 were there" in again.output
    assert (folder / "cars" / "car-000002.pem").read_bytes() == kept
    assert (folder / "cars" / "a.b.key").stat().st_mode & 0o777 == 0o600
    wrong = run("ca", "issue", "--ids", "-", "--dir", str(folder), input="car-9\nca r\n")
    assert (wrong.exit_code, "'ca r' is not accepted" in wrong.output) == (1, True)
    assert not (folder / "cars" / "car-9.pem").exists()
    for words in ((), ("car-9", "--vehicles", "2")):
        assert run("ca", "issue", *words, "--dir", str(folder)).exit_code == 2


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

"""The whole loop under TLS, as `cartwin up --tls` and the fleet make it: telemetry in, a command back."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.processes import until
from tests.stacks import need_mosquitto

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]

ROOT = Path(__file__).parents[2]
HONEST, THIEF, OTHER = ("car-000001", "car-000002"), "car-000003", "car-000004"


def said(folder):
    """How often each car's log says what, so far."""
    found = Counter()
    for log in folder.glob("*.jsonl"):
        for line in log.read_text().splitlines():
            record = json.loads(line)
            found[record["v"], record["e"]] += 1
    return found


def twin(api, car):
    """A twin's document, or a problem."""
    return api.get(f"/v1/twins/{car}").json()


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.fixture
def fleet(tmp_path):
    """Start three cars of Locust at a broker under TLS; ended at the end of the test."""
    started = []

    def start(url, trusted, certificates):
        arguments = {
            "-f": ROOT / "load-test" / "locustfile.py", "--host": url, "-u": 3, "-r": 20,
            "--run-time": "100s", "--mqtt": "5", "--interval": 0.5, "--linger-s": 0.2,
            "--ca-file": trusted, "--certificates": certificates, "--cars-log": tmp_path / "cars",
            "--exit-code-on-error": 0,
        }  # fmt: skip
        argv = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
        argv += [str(word) for pair in arguments.items() for word in pair]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (tmp_path / "locust.txt").open("wb") as out:
            started.append(subprocess.Popen(argv, stdout=out, stderr=out, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("broker", ["mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)])
def test_cars_with_certificates_go_round_the_loop_and_nobody_speaks_for_another(
    broker, make_stack, fleet, tmp_path
):
    """Telemetry to twins, a command to a car and its end back; a car with another's certificate is
    refused every message (HiveMQ does not let it in), told so, and has no twin."""
    if broker == "mosquitto":
        need_mosquitto()
    _, endpoints = make_stack(
        mqtt=broker,
        tls=True,
        cars=4,
        partitions=2,
        processes=("uplink", "downlink", "worker", "api"),
    )
    authority = Path(endpoints.ca)
    assert endpoints.mqtt[0].startswith("mqtts://127.0.0.1:")
    assert mode(authority) == 0o700
    assert {mode(key) for key in authority.rglob("*.key")} == {0o600}
    assert len(list(authority.rglob("cars/*.key"))) == 4

    shown = tmp_path / "certificates"
    shown.mkdir()
    for car, owner in (*zip(HONEST, HONEST, strict=True), (THIEF, OTHER)):
        for end in ("pem", "key"):
            (shown / f"{car}.{end}").symlink_to(authority / "cars" / f"{owner}.{end}")
    locust = fleet(endpoints.mqtt[0], authority / "ca.pem", shown)
    with httpx.Client(base_url=endpoints.api, timeout=5) as api:
        until(
            lambda: (
                all("speed" in twin(api, car).get("reported", {}) for car in HONEST)
                and (broker == "hivemq" or said(tmp_path / "cars")[THIEF, "sent"] > 0)
                and api.get("/v1/fleet").json()["presence"] == {"online": 2}
            ),
            lambda: (tmp_path / "locust.txt").read_text()[-2000:],
        )
        asked = api.post(
            f"/v1/twins/{HONEST[0]}/commands",
            headers={"Idempotency-Key": "tls-1"},
            json={"name": "ping", "args": {}, "ttl_s": 60},
        )
        assert asked.status_code in (201, 202), asked.text
        command = asked.json()["id"]
        until(
            lambda: api.get(f"/v1/commands/{command}").json()["state"] == "succeeded",
            lambda: api.get(f"/v1/commands/{command}").text,
        )
        locust.send_signal(signal.SIGTERM)
        assert locust.wait(30) == 0
        until(lambda: api.get("/v1/fleet").json()["presence"] == {"offline": 2}, "a goodbye each")
        assert api.get(f"/v1/twins/{THIEF}").status_code == 404
    told = said(tmp_path / "cars")
    for car in HONEST:
        assert told[car, "sent"] == told[car, "acked"] > 0
    assert told[THIEF, "acked"] == 0
    refused = "Exception('Not authorized')" if broker == "hivemq" else "refused: Not authorized"
    assert refused in (tmp_path / "locust.txt").read_text()

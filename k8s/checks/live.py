"""Every query of every dashboard, and every rule, on a Prometheus that scrapes a running stack.

`cartwin demo` gives the stack: 200 cars, models trained, alarms and commands; the JMX exporter of compose.yaml
shows Kafka's figures; one message that cannot be read and some requests give what is rare a value. A query
must be understood and give at least one series (a misspelt metric gives none). A query of a rule may be
empty: what it warns of is not there. All addresses are of this machine, and all of it ends by itself.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from k8s.checks.observed import rules
from k8s.checks.programs import Absent
from k8s.checks.tools import ROOT
from k8s.observability.panels import BOARDS
from twin.local import jars
from twin.local.ports import HOST, PortPicker

_SECONDS: Final = 240
_READY_S: Final = 120.0
_ALARMS_S: Final = 300.0
_SETTLE_S: Final = 40.0
_STOP_S: Final = 60.0


def faults(pictures: str | None = None) -> Iterator[str]:
    """A sentence for each query that gives an error or nothing; `pictures`: a folder for PNGs."""
    if shutil.which("prometheus") is None:
        raise Absent("prometheus is not installed: sh scripts/deploy-tools.sh")
    picker = PortPicker()
    with tempfile.TemporaryDirectory(prefix="cartwin-live-") as scratch:
        folder, jmx, port = Path(scratch), picker.free(), picker.free()
        demo = subprocess.Popen(
            [sys.executable, "-m", "twin.cli", "demo", "--seconds", str(_SECONDS), "--json",
             "--data-dir", str(folder / "stack")],
            cwd=ROOT,
            env={**os.environ, "JAVA_TOOL_OPTIONS": _agent(jmx), "SCORER_DRIFT_S": "20"},
            stdout=(folder / "demo.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        server: subprocess.Popen[bytes] | None = None
        try:
            endpoints = _endpoints(demo, folder / "stack" / "endpoints.json")
            config = folder / "prometheus.yml"
            config.write_text(yaml.safe_dump(_config(endpoints, jmx)))
            server = subprocess.Popen(
                [str(shutil.which("prometheus")), f"--config.file={config}",
                 f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={HOST}:{port}"],
                stdout=subprocess.DEVNULL, stderr=(folder / "prometheus.log").open("wb"),
            )  # fmt: skip
            _rare(endpoints)
            _alarmed(demo, endpoints["api"])
            _rare(endpoints)
            time.sleep(_SETTLE_S)  # rates are over a minute
            asked = f"http://{HOST}:{port}"
            yield from _asked(asked)
            if pictures is not None:
                from k8s.checks import pictures as drawn  # noqa: PLC0415 - imports matplotlib

                drawn.draw(asked, Path(pictures))
        finally:
            for child in (demo, server):
                if child is not None and child.poll() is None:
                    child.send_signal(signal.SIGINT if child is demo else signal.SIGTERM)
                    try:
                        child.wait(_STOP_S)
                    except subprocess.TimeoutExpired:
                        child.kill()


def _agent(port: int) -> str:
    place = jars.class_path_file(os.environ, jars.JMX)
    jars.resolve(place, jars.JMX)
    (jar,) = jars.read_class_path(place) or [""]
    return f"-javaagent:{jar}={HOST}:{port}:{ROOT / 'k8s' / 'observability' / 'kafka-jmx.yaml'}"


def _endpoints(demo: subprocess.Popen[bytes], path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and demo.poll() is None:
        with suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(path.read_text())
            return told
        time.sleep(0.5)
    raise RuntimeError("the stack did not start")


def _config(endpoints: dict[str, Any], jmx: int) -> dict[str, Any]:
    """k8s/observability/prometheus.yml with the addresses of this stack, scraping each second."""
    config: dict[str, Any] = yaml.safe_load(
        (ROOT / "k8s" / "observability" / "prometheus.yml").read_text()
    )
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(ROOT / "k8s" / "observability" / "rules.yml")]
    at = {name: url.removeprefix("http://") for name, url in endpoints["health"].items()}
    at["kafka"] = f"{HOST}:{jmx}"
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [at[job["job_name"]]]}]
    return config


def _rare(endpoints: dict[str, Any]) -> None:
    """What a healthy fleet does not do by itself: nonsense from a car, wishes from people."""
    address = urllib.parse.urlsplit(endpoints["mqtt"][0])
    car = paho.Client(CallbackAPIVersion.VERSION2, "car-of-the-check")
    car.connect(str(address.hostname), address.port or 1883)
    car.loop_start()
    for _ in range(5):
        car.publish("vehicles/car-of-the-check/telemetry", b"{nonsense", qos=1).wait_for_publish(10)
    car.disconnect()
    car.loop_stop()
    for number in range(1, 9):
        with suppress(urllib.error.URLError):
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{endpoints['api']}/v1/twins/car-{number:06d}/desired",
                    b'{"telemetry_interval_s": 5}',
                    {"content-type": "application/merge-patch+json"},
                    method="PATCH",
                ),
                timeout=10,
            )


def _alarmed(demo: subprocess.Popen[bytes], api: str) -> None:
    deadline = time.monotonic() + _ALARMS_S
    while time.monotonic() < deadline:
        if demo.poll() is not None:
            raise RuntimeError("the demo ended before its cars alarmed")
        with (
            suppress(urllib.error.URLError, KeyError),
            urllib.request.urlopen(f"{api}/v1/fleet", timeout=5) as answer,
        ):
            if json.load(answer)["health"].get("alarm", 0) >= 5:
                return
        time.sleep(1)
    raise RuntimeError("no car alarmed")


def _asked(url: str) -> Iterator[str]:
    for board in BOARDS:
        for panel in board.panels:
            for query, _ in panel.queries:
                told = ask(url, query.replace("$__rate_interval", "1m"))
                if isinstance(told, str):
                    yield f"dashboard {board.uid}, {panel.title}: {told}"
                elif not told:
                    yield f"dashboard {board.uid}, {panel.title}: no series: {query}"
    for rule in rules():
        told = ask(url, rule["expr"])
        if isinstance(told, str):
            yield f"rule {rule.get('alert') or rule.get('record')}: {told}"
    for name in (
        "SensorToTwinBudgetBurnsFast",
        "UplinkStandsStill",
        "ProcessDown",
        "BrokerDropsMessages",
    ):
        if ask(url, f'ALERTS{{alertname="{name}",alertstate="firing"}}'):
            yield f"alert {name} fires on a healthy stack"


def ask(url: str, query: str, path: str = "query", **more: str) -> list[Any] | str:
    """Series of a query, or the error that Prometheus gives."""
    text = urllib.parse.urlencode({"query": query, **more})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{text}", timeout=20) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.HTTPError as error:
        return f"{json.load(error).get('error', error)}: {query}"

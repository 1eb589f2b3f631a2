"""Our processes on a Kafka that lets in only whom it knows, over TLS; and what is said otherwise."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import paho.mqtt.client as paho
import pytest

from tests.processes import Process, until
from tests.stacks import infrastructure
from twin.local import kafka, probe
from twin.local.data import Endpoints
from twin.local.jars import class_path_file, resolve
from twin.local.options import FUNCTIONAL_JVM, External
from twin.local.ports import HOST, PortPicker
from twin.local.process import spawn, stop_all
from twin.local.stack import Stack

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "cartwin", "pa:ss%wo rd"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def certificates(folder: Path) -> None:
    """`ca.pem`, and `broker.pem`: the key and certificate of a broker at 127.0.0.1 that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl): no certificates.")
    new = "req -newkey rsa:2048 -nodes -subj /CN=cartwin-test"
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}")
    for command in (
        f"{new} -x509 -days 2 -keyout ca.key -out ca.pem",
        f"{new} -keyout broker.key -out broker.csr",
        "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out broker.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    made = (folder / name for name in ("broker.key", "broker.crt"))
    (folder / "broker.pem").write_text("".join(path.read_text() for path in made))


def secured(folder: Path, port: int, secure_port: int, controller_port: int) -> str:
    """server.properties with a second listener, of TLS and SASL."""
    brokers = f"BROKER://{HOST}:{port},SECURE://{HOST}:{secure_port}"
    more = {
        "listeners": f"{brokers},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": brokers,
        "listener.security.protocol.map": "BROKER:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "listener.name.secure.ssl.keystore.type": "PEM",
        "listener.name.secure.ssl.keystore.location": str(folder / "broker.pem"),
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": f"{PLAIN} required"
        f' user_{USER}="{PASSWORD}";',
        "listener.name.secure.scram-sha-256.sasl.jaas.config": f"{SCRAM} required;",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{SCRAM} required;",
    }
    plain = kafka.properties(folder / "kafka", port, controller_port)
    return plain + "".join(f"{name}={value}\n" for name, value in more.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the certificates, and the password in a file."""
    made = tmp_path_factory.mktemp("secured")
    certificates(made)
    (made / "password").write_text(PASSWORD + "\nof next month\n")
    return made


@pytest.fixture(scope="module")
def endpoints(folder: Path) -> Iterator[Endpoints]:
    """Redis, amqtt and the secure listener of a Kafka that has every topic of the catalogue."""
    resolve(class_path_file(os.environ))
    jars = kafka.class_path(os.environ)
    assert jars is not None
    picker = PortPicker()
    port, secure_port, controller_port = (picker.free() for _ in range(3))
    config = folder / "kafka.properties"
    config.write_text(secured(folder, port, secure_port, controller_port))
    formatting = kafka.format_command(FUNCTIONAL_JVM, jars, config)
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        formatting += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
    subprocess.run(formatting, check=True, capture_output=True)
    serving = kafka.server_command(FUNCTIONAL_JVM, jars, config)
    broker = spawn("kafka", serving, os.environ, folder / "kafka.log")
    plain = f"{HOST}:{port}"
    stack = Stack(
        infrastructure(
            data_dir=folder / "stack", mqtt="amqtt", external=External(kafka=plain), partitions=4
        )
    )
    try:
        probe.wait_ready("kafka", probe.kafka(plain), 60, child=broker, watched=[broker])
        yield replace(stack.start(), kafka=f"{HOST}:{secure_port}")
    finally:
        stack.stop()
        stop_all([broker], 15)


def secrets(folder: Path, mechanism: str) -> dict[str, str]:
    """The environment of whom this Kafka lets in."""
    return {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CA": str(folder / "ca.pem"),
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD_FILE": str(folder / "password"),
    }


def test_a_message_and_a_decision_go_round_over_tls_with_every_mechanism(endpoints, folder):
    """From MQTT to the API, and from the API to the owner and back: every client is let in."""
    worker = Process(
        "worker", endpoints, folder, **secrets(folder, "SCRAM-SHA-512"),
        STORE="rocksdb", STORE_DIR=str(folder / "copy"),
    )  # fmt: skip
    uplink = Process("uplink", endpoints, folder, **secrets(folder, "PLAIN"))
    downlink = Process("downlink", endpoints, folder, **secrets(folder, "SCRAM-SHA-512"))
    api = Process("api", endpoints, folder, **secrets(folder, "SCRAM-SHA-256"))
    processes = (worker, uplink, downlink, api)
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.ready()
        car = paho.Client(paho.CallbackAPIVersion.VERSION2, "car-1")
        host, _, port = endpoints.mqtt[0].removeprefix("mqtt://").partition(":")
        car.connect(host, int(port))
        car.loop_start()
        try:
            now = time.time_ns() // 1_000_000
            said = {"event_time": now, "session": now, "sequence": 1, "speed": 12.5}
            sent = car.publish("vehicles/car-1/telemetry", json.dumps(said), qos=1)
            sent.wait_for_publish(30)
        finally:
            car.disconnect()
            car.loop_stop()
        url = f"{api.url}/v1/twins/car-1"
        until(lambda: httpx.get(url).status_code == 200, "the twin is not there")
        assert httpx.get(url).json()["reported"]["speed"]["v"] == 12.5
        asked = httpx.patch(
            f"{url}/desired",
            content=b'{"telemetry_interval_s":5}',
            headers={"content-type": "application/merge-patch+json"},
            timeout=30,
        )
        assert asked.status_code == 200, asked.text
        assert httpx.get(url).json()["desired"]["properties"] == {"telemetry_interval_s": 5}
    finally:
        codes = [process.stop() for process in processes]
    assert codes == [0] * len(processes)


BENCH = """
import sys
from bench_broker import Broker
from twin.wire.codec import encode_telemetry
from twin.wire.telemetry import Telemetry
broker, at = Broker(sys.argv[1]), 1_790_000_000_000
records = [Telemetry("car-9", at + n, at, n, {"speed": 1.0 * n}) for n in range(1, 6)]
broker.feed([(b"car-9", encode_telemetry(record), ()) for record in records])
print(sum(message.key() == b"car-9" for message in broker.read("telemetry")))
"""


def test_a_bench_writes_and_the_checker_reads_over_tls(endpoints, folder, tmp_path):
    """Their clients are their own, and are let in by the same settings; without them by none."""
    paths = f"{ROOT}{os.pathsep}{ROOT / 'load-test'}"
    environment = {**os.environ, "PYTHONPATH": paths, **secrets(folder, "SCRAM-SHA-256")}
    command = [sys.executable, "-c", BENCH, endpoints.kafka]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "5\n", done.stderr[-2000:]
    head = {"v": "car-9", "session": 1_790_000_000_000}
    said: list[dict[str, object]] = [{"e": "connect", **head, "t": head["session"]}]
    for n in range(1, 6):
        said.append({"e": "sent", **head, "sequence": n, "t": n})
        said.append({"e": "acked", **head, "sequence": n})
    said.append({"e": "truth", "v": "car-9", "mode": None, "onset": None, "failure": None})
    (tmp_path / "cars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    command = [
        sys.executable, str(ROOT / "load-test" / "verdict.py"), "--cars-log", str(tmp_path),
        "--kafka", endpoints.kafka, "--deadline-s", "0", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = json.loads(done.stdout)
    # No worker is at work, so there is no twin, and the checker says that.
    assert (done.returncode, line["kafka"], line["lost"], line["twins"]) == (1, 5, 0, 0), line
    for name in secrets(folder, ""):
        del environment[name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"Kafka at {endpoints.kafka} does not answer" in done.stderr


TRAINER = """
import sys
from models import dataset, log
from twin.kit import kafka
from twin.wire import topics
producer = kafka.producer(sys.argv[1], "test")
for n in range(20):
    producer.produce(topics.HISTORY, b"%d" % n, b"car-1")
assert producer.flush(30) == 0
stretch = log.freeze(sys.argv[1], topics.HISTORY)
print(sorted(int(value) for batch in dataset.read(sys.argv[1], stretch) for value, _ in batch))
"""


@pytest.mark.deep
def test_the_log_is_read_for_training_over_tls(endpoints, folder):
    """By tensorflow-io, whose client is another librdkafka."""
    environment = {**os.environ, **secrets(folder, "PLAIN")}
    command = [sys.executable, "-c", TRAINER, endpoints.kafka]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [str(list(range(20)))], done.stderr[-2000:]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("mechanism", "why"),
    [
        # Its error would have the whole of it.
        ("PLAIN", "tensorflow-io takes no sasl.password with a = in it"),
        ("SCRAM-SHA-512", "tensorflow-io cannot prove a user by SCRAM-SHA-512"),
    ],
)
def test_what_tensorflow_io_cannot_do_is_said(folder, mechanism, why):
    """Instead of half a minute's silence."""
    told = {"KAFKA_SASL_PASSWORD_FILE": "", "KAFKA_SASL_PASSWORD": "s3=cret"}
    environment = {**os.environ, **secrets(folder, mechanism), **told}
    command = [sys.executable, "-c", "from models import dataset; dataset._open('a:1', 't', 'g')"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert why in done.stderr
    assert "s3=cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"KAFKA_SASL_PASSWORD_FILE": "", "KAFKA_SASL_PASSWORD": "guess"}, "uthentication fail"),
        ({"KAFKA_SSL_CA": ""}, "certificate verify failed"),
    ],
)
def test_a_worker_that_is_not_let_in_says_why(endpoints, folder, tmp_path, wrong, why):
    """Within seconds: by whom, and until when it goes on trying."""
    told = {**secrets(folder, "SCRAM-SHA-512"), **wrong}
    worker = Process("worker", endpoints, tmp_path, **told)
    worker.start()

    def lines(event):
        said = map(json.loads, worker.child.log.read_text().splitlines())
        return [line for line in said if line["event"] == event]

    try:
        waiting = until(lambda: worker.check() and lines("waiting for Kafka"), "it says nothing")
        assert endpoints.kafka in waiting[0]["why"]
        assert datetime.fromisoformat(waiting[0]["until"]) > datetime.now(UTC)
        assert any(why in line["error"] for line in lines("kafka client"))
    finally:
        worker.kill()

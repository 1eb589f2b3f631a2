"""Every process on a real Kafka that allows what k8s/platform/users.yaml allows, and nothing else.

Each shows the certificate of its own KafkaUser; the manifest's rules are put into Kafka as they stand
there. What a process may not, Kafka refuses, and the process would not come round.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
import yaml
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from paho.mqtt.enums import CallbackAPIVersion

from models import edge
from models.features import INPUTS
from models.registry import promote, registration
from models.simulator import Cars
from models.trend import WARM_UP
from tests.models_artefacts import publish_small
from tests.processes import Process, until
from tests.stacks import infrastructure
from twin.local import kafka, probe
from twin.local.data import Endpoints
from twin.local.jars import class_path_file, resolve
from twin.local.options import FUNCTIONAL_JVM, External
from twin.local.ports import HOST, PortPicker
from twin.local.process import spawn, stop_all
from twin.local.stack import Stack
from twin.wire import topics

pytestmark = pytest.mark.integration

USERS = Path(__file__).parents[2] / "k8s" / "platform" / "users.yaml"
SERVICES = ("uplink", "downlink", "worker", "scorer", "api")
SUPER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"


def users() -> list[dict[str, Any]]:
    """The KafkaUsers of the platform."""
    return list(yaml.safe_load_all(USERS.read_text()))


def certificates(folder: Path) -> None:
    """`ca.pem`, `broker.pem` (key and certificate at 127.0.0.1), and a certificate for every user."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl): no certificates.")
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}")

    def run(command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)

    run("req -newkey rsa:2048 -nodes -subj /CN=test -x509 -days 2 -keyout ca.key -out ca.pem")
    for name in ("broker", *(user["metadata"]["name"] for user in users())):
        run(f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        more = "-extfile names" if name == "broker" else ""
        run(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -days 2 {more} -out {name}.crt")
    made = (folder / name for name in ("broker.key", "broker.crt"))
    (folder / "broker.pem").write_text("".join(path.read_text() for path in made))


def allow(plain: str) -> None:
    """The rules of users.yaml, as Strimzi's user operator puts them into Kafka."""
    bindings = [
        AclBinding(
            ResourceType[acl["resource"]["type"].upper()],
            acl["resource"]["name"],
            ResourcePatternType["PREFIXED" if "patternType" in acl["resource"] else "LITERAL"],
            f"User:CN={user['metadata']['name']}",
            "*",
            AclOperation[operation.upper()],
            AclPermissionType.ALLOW,
        )
        for user in users()
        for acl in user["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    ]
    admin = AdminClient(
        {"bootstrap.servers": plain}
    )  # by a name: unreferenced it would end at once
    for made in admin.create_acls(bindings).values():
        made.result(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rights")
    certificates(made)
    return made


@pytest.fixture(scope="module")
def endpoints(folder: Path) -> Iterator[Endpoints]:
    """Redis, amqtt, and a Kafka whose listener for users wants a certificate and goes by rules."""
    resolve(class_path_file(os.environ))
    jars = kafka.class_path(os.environ)
    assert jars is not None
    picker = PortPicker()
    port, users_port, controller_port = (picker.free() for _ in range(3))
    brokers = f"BROKER://{HOST}:{port},USERS://{HOST}:{users_port}"
    more = {
        "listeners": f"{brokers},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": brokers,
        "listener.security.protocol.map": "BROKER:PLAINTEXT,USERS:SSL,CONTROLLER:PLAINTEXT",
        "listener.name.users.ssl.keystore.type": "PEM",
        "listener.name.users.ssl.keystore.location": str(folder / "broker.pem"),
        "listener.name.users.ssl.truststore.type": "PEM",
        "listener.name.users.ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.users.ssl.client.auth": "required",
        "authorizer.class.name": SUPER,
        # The plain listener is the test's own: it stands for Strimzi's operators.
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        "auto.create.topics.enable": "false",
    }
    config = folder / "kafka.properties"
    text = kafka.properties(folder / "kafka", port, controller_port)
    config.write_text(text + "".join(f"{name}={value}\n" for name, value in more.items()))
    formatting = kafka.format_command(FUNCTIONAL_JVM, jars, config)
    subprocess.run(formatting, check=True, capture_output=True)
    serving = kafka.server_command(FUNCTIONAL_JVM, jars, config)
    broker = spawn("kafka", serving, os.environ, folder / "kafka.log")
    plain = f"{HOST}:{port}"
    external = External(kafka=plain)
    stack = Stack(
        infrastructure(data_dir=folder / "stack", mqtt="amqtt", external=external, partitions=4)
    )
    try:
        probe.wait_ready("kafka", probe.kafka(plain), 60, child=broker, watched=[broker])
        started = stack.start()
        allow(plain)
        (folder / "plain").write_text(plain)
        yield replace(started, kafka=f"{HOST}:{users_port}")
    finally:
        stack.stop()
        stop_all([broker], 15)


def shown(folder: Path, user: str) -> dict[str, str]:
    """The environment by which a process shows the certificate of a user."""
    return {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA": str(folder / "ca.pem"),
        "KAFKA_SSL_CERT": str(folder / f"{user}.crt"),
        "KAFKA_SSL_KEY": str(folder / f"{user}.key"),
    }


def client(folder: Path, user: str, bootstrap: str) -> dict[str, Any]:
    """The same for a client of the test."""
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": "ssl",
        "ssl.ca.location": str(folder / "ca.pem"),
        "ssl.certificate.location": str(folder / f"{user}.crt"),
        "ssl.key.location": str(folder / f"{user}.key"),
    }


def values(plain: str, topic: str) -> list[dict[str, Any]]:
    """All records of a topic, read by the test itself."""
    consumer = Consumer(
        {"bootstrap.servers": plain, "group.id": "test", "enable.partition.eof": True}
    )
    found, open_ = [], set(range(4))
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in open_])
        while open_:
            for message in consumer.consume(500, 1.0):
                error = message.error()
                if error is None:
                    found.append(json.loads(message.value() or b"null"))
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard(message.partition() or 0)
    finally:
        consumer.close()
    return found


def test_the_loop_goes_round_under_the_rights_of_the_manifests(
    endpoints: Endpoints, folder: Path
) -> None:
    """Telemetry to twin, score and baseline; a decision; a command to the car and its outcome; what
    cannot be read to `rejected`, shown and driven again; the model to the brokers.
    """
    plain = (folder / "plain").read_text()
    store = folder / "models"
    made = publish_small(store, 1, now_ms=1_790_000_000_000)
    promote(plain, registration(made), edge.package(made))
    told = {
        "worker": {"STORE": "rocksdb", "STORE_DIR": str(folder / "copy"), "WORKER_ID": "worker-0"},
        "scorer": {"MODEL_STORE": str(store), "SCORER_ID": "scorer-0", "SCORE_ALL": "true"},
    }
    processes = {
        name: Process(name, endpoints, folder, **shown(folder, name), **told.get(name, {}))
        for name in SERVICES
    }
    try:
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.ready()
        _drive(endpoints, processes["api"].url, plain)
    finally:
        codes = [process.stop() for process in processes.values()]
    assert codes == [0] * len(processes)
    logs = [line for path in folder.glob("*-1.log") for line in path.read_text().splitlines()]
    assert not [line for line in logs if "AUTHORIZATION" in line or "not authorized" in line]


def _drive(endpoints: Endpoints, api: str, plain: str) -> None:
    heard: dict[str, bytes] = {}
    car = paho.Client(CallbackAPIVersion.VERSION2, "car-1")
    car.on_message = lambda _c, _u, message: heard.update({message.topic: message.payload})
    host, _, port = endpoints.mqtt[0].removeprefix("mqtt://").partition(":")
    car.connect(host, int(port))
    car.loop_start()
    try:
        for topic in ("vehicles/car-1/commands", "vehicles/car-1/desired", topics.EDGE_TOPIC):
            car.subscribe(topic, 1)
        session = time.time_ns() // 1_000_000 - 100_000

        def say(leaf: str, record: Any) -> None:
            payload = record if isinstance(record, bytes) else json.dumps(record).encode()
            car.publish(f"vehicles/car-1/{leaf}", payload, qos=1).wait_for_publish(30)

        say("status", {"state": "online", "session": session, "at": session})
        cars = Cars(1, seed=1)
        for sequence in range(WARM_UP + 40):
            row = {name: float(value[0]) for name, value in cars.step().items() if name in INPUTS}
            mark = {"event_time": session + 1000 * sequence, "session": session}
            say("telemetry", {**mark, "sequence": sequence, **row})
        say("telemetry", b"{nonsense")
        twin = f"{api}/v1/twins/car-1"
        until(lambda: httpx.get(twin).status_code == 200, "the twin is not there")
        until(lambda: "score" in str(httpx.get(twin).json().get("health")), "no score in the twin")
        asked = httpx.patch(
            f"{twin}/desired",
            content=b'{"telemetry_interval_s":5}',
            headers={"content-type": "application/merge-patch+json"},
            timeout=30,
        )
        assert asked.status_code == 200, asked.text
        given = httpx.post(
            f"{twin}/commands",
            json={"name": "limit_power", "args": {"factor": 0.5}},
            headers={"Idempotency-Key": "one"},
            timeout=30,
        )
        assert given.status_code == 201, given.text
        until(lambda: "vehicles/car-1/commands" in heard, "the command did not come")
        until(lambda: topics.EDGE_TOPIC in heard, "the model did not come")
        command = json.loads(heard["vehicles/car-1/commands"])
        for state in ("received", "accepted", "running", "succeeded"):
            now = time.time_ns() // 1_000_000
            say("outcomes", {"command_id": command["id"], "state": state, "at": now})
        until(
            lambda: httpx.get(f"{api}/v1/commands/{command['id']}").json()["state"] == "succeeded",
            "the outcome is not in the ledger",
        )
        listed = until(lambda: httpx.get(f"{api}/v1/rejected").json()["items"], "nothing rejected")
        assert [one["reason"] for one in listed] == ["malformed_json"], listed
    finally:
        car.disconnect()
        car.loop_stop()
    assert {one["vehicle_id"] for one in values(plain, topics.BASELINES)} == {"car-1"}
    assert values(plain, topics.DELIVERIES)


def may_see(folder: Path, user: str, bootstrap: str, topic: str) -> bool:
    """Whether Kafka tells a user anything about a topic: of what it may not, not even that."""
    consumer = Consumer({**client(folder, user, bootstrap), "group.id": "test"})
    try:
        error = consumer.list_topics(topic, timeout=30).topics[topic].error
        assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
        return error is None
    finally:
        consumer.close()


@pytest.mark.parametrize("user", [*SERVICES, "keda"])
def test_nobody_but_trainer_and_evaluation_reads_the_truth(
    endpoints: Endpoints, folder: Path, user: str
) -> None:
    """Nor decides what scorers and cars run: Kafka refuses."""
    assert not may_see(folder, user, endpoints.kafka, topics.TRUTH)
    said: list[Any] = []
    producer = Producer(client(folder, user, endpoints.kafka))
    producer.produce(
        topics.MODELS, b"{}", b"engine/champion", on_delivery=lambda error, _: said.append(error)
    )
    producer.flush(30)
    assert said[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize("user", ["trainer", "evaluation"])
def test_who_learns_and_judges_reads_the_truth(
    endpoints: Endpoints, folder: Path, user: str
) -> None:
    """Kafka shows it to them, and nothing of the twins."""
    assert may_see(folder, user, endpoints.kafka, topics.TRUTH)
    assert not may_see(folder, user, endpoints.kafka, topics.TWINS)


TRAINER = """
import sys
from models import dataset, log
from twin.wire import topics
stretch = log.freeze(sys.argv[1], topics.HISTORY)
print(sorted(int(value) for batch in dataset.read(sys.argv[1], stretch) for value, _ in batch))
"""


@pytest.mark.deep
def test_the_trainer_reads_the_past_by_its_certificate(endpoints: Endpoints, folder: Path) -> None:
    """By tensorflow-io, whose client is another librdkafka; and takes the group of its reading away."""
    plain = (folder / "plain").read_text()
    producer = Producer({"bootstrap.servers": plain, "partitioner": "murmur2_random"})
    for number in range(20):
        producer.produce(topics.HISTORY, b"%d" % number, b"car-1")
    assert producer.flush(30) == 0
    done = subprocess.run(
        [sys.executable, "-c", TRAINER, endpoints.kafka],
        env={**os.environ, **shown(folder, "trainer")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [str(list(range(20)))], done.stderr[-2000:]
    assert "left behind" not in done.stdout + done.stderr

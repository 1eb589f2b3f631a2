"""MQTT brokers that want TLS, a password or a certificate: who gets in, and what others are told."""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from ingest.access import Access
from ingest.mqtt import Client
from tests.mosquittos import own_mosquitto
from tests.processes import Process, until
from twin.kit.mqtt_address import Broker
from twin.local.data import Endpoints

pytestmark = pytest.mark.integration

__all__ = ["own_mosquitto"]

DEADLINE_S = 30
USER, PASSWORD = "uplink", "s3cret, and long"


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """Certificates of an authority of the test's own, as PEM files in a folder."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.path = str(folder / f"{name}.pem")
        self._key = str(folder / f"{name}.key")
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key),
            *("-out", self.path),
        )

    def issue(self, name, *names):
        """Certificate and key for `name`, a server at `names` (as OpenSSL writes them)."""
        stem = self.folder / name
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", f"{stem}.key", "-out", f"{stem}.csr"),
        )
        extra = ["-extfile", f"{stem}.ext"] if names else []
        if names:
            Path(f"{stem}.ext").write_text(f"subjectAltName={','.join(names)}\n")
        openssl(
            *("x509", "-req", "-in", f"{stem}.csr", "-CA", self.path, "-CAkey", self._key),
            *("-CAcreateserial", "-days", "2", "-out", f"{stem}.pem", *extra),
        )
        return f"{stem}.pem", f"{stem}.key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority):
    """Lines of a broker that speaks TLS and is 127.0.0.1."""
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    return f"certfile {certificate}", f"keyfile {key}"


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """Lines of a broker that lets one user in."""
    path = tmp_path_factory.mktemp("users") / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", path, USER, PASSWORD], check=True)
    return "allow_anonymous false", f"password_file {path}"


@pytest.fixture(scope="module")
def password(tmp_path_factory):
    """The file with the user's password."""
    path = tmp_path_factory.mktemp("secret") / "password"
    path.write_text(f"{PASSWORD}\n")
    return str(path)


async def eventually(condition):
    """Return when it holds; fails at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def outcome(port, access, *, tls=True, host="127.0.0.1"):
    """What a client with `access` comes to: "" when it is connected, else why it is not."""

    async def play():
        async with Client(Broker(host, port, tls), "trying", access=access) as client:
            await eventually(lambda: client.fault != "not connected yet")
            return client.fault

    return asyncio.run(play())


def test_only_a_broker_that_we_trust_under_its_name_is_spoken_to(
    own_mosquitto, authority, server, tmp_path
):
    """The right authority connects; a stranger, another name and a plain port are told apart."""
    port = own_mosquitto.start(*server).port
    assert outcome(port, Access(ca_file=authority.path)) == ""
    stranger = Authority(tmp_path, "stranger").path
    said = outcome(port, Access(ca_file=stranger))
    assert f"the certificate of mqtts://127.0.0.1:{port} is not accepted" in said
    assert f"MQTT_CA_FILE {stranger!r}" in said
    assert "MQTT_CA_FILE is empty: the system's authorities" in outcome(port, Access())
    said = outcome(port, Access(ca_file=authority.path), host="localhost")
    assert "not valid for 'localhost'" in said
    said = outcome(port, Access(ca_file=authority.path), tls=False)
    assert "before it answered CONNECT; it may speak TLS: mqtts://" in said
    own_mosquitto.stop()
    own_mosquitto.start()
    assert "speaks no TLS" in outcome(port, Access(ca_file=authority.path))


def test_an_old_tls_is_refused(own_mosquitto, authority, server):
    """A broker that speaks TLS 1.2 at most is spoken to; 1.2 is the least that we offer."""
    context = Access(ca_file=authority.path).context()
    assert context.minimum_version.name == "TLSv1_2"
    port = own_mosquitto.start(*server, "tls_version tlsv1.2").port
    assert outcome(port, Access(ca_file=authority.path)) == ""


def test_a_password_lets_in_and_its_absence_is_named(own_mosquitto, users, password, tmp_path):
    """Without user, with a wrong password and with the right one; a new password needs no restart."""
    port = own_mosquitto.start(*users).port
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    for access in (Access(), Access(username=USER, password_file=str(wrong))):
        said = outcome(port, access, tls=False)
        assert "refuses the connection" in said
        assert "MQTT_USERNAME with MQTT_PASSWORD_FILE" in said
    assert outcome(port, Access(username=USER, password_file=password), tls=False) == ""

    async def corrected():
        access = Access(username=USER, password_file=str(wrong))
        async with Client(Broker("127.0.0.1", port), "trying", access=access) as client:
            await eventually(lambda: "refuses" in client.fault)
            wrong.write_text(PASSWORD)
            await asyncio.wait_for(client.connected(), DEADLINE_S)

    asyncio.run(corrected())


def test_a_certificate_lets_in_and_its_absence_is_named(own_mosquitto, authority, server, tmp_path):
    """A broker that asks for a certificate of its authority: none and a stranger's are told."""
    wanted = ("require_certificate true", "use_identity_as_username true")
    port = own_mosquitto.start(*server, *wanted, f"cafile {authority.path}").port
    certificate, key = authority.issue("uplink")
    assert outcome(port, Access(authority.path, certificate, key)) == ""
    stranger = Authority(tmp_path, "stranger").issue("uplink")
    for access in (Access(authority.path), Access(authority.path, *stranger)):
        said = outcome(port, access)
        assert "before it answered CONNECT; it may want a certificate of ours" in said
        assert "MQTT_CERT_FILE" in said


def test_the_uplink_reads_a_broker_with_tls_and_password(
    own_mosquitto, authority, server, users, password, kafka, tmp_path
):
    """Settings name the files; a car's message goes through TLS to Kafka, back-pressure and all."""
    port = own_mosquitto.start(*server, *users, "max_queued_messages 10000").port
    url = f"mqtts://127.0.0.1:{port}"
    folder = tmp_path / "uplink"
    folder.mkdir()
    uplink = Process(
        "uplink",
        Endpoints(None, (url,), kafka, "", 0),
        folder,
        MQTT_CA_FILE=authority.path,
        MQTT_USERNAME=USER,
        MQTT_PASSWORD_FILE=password,
        UPLINK_WINDOW="10",
    )
    count, now = 500, time.time_ns() // 1_000_000
    try:
        uplink.start().ready()
        car = paho.Client(paho.CallbackAPIVersion.VERSION2, "a-car")
        car.username_pw_set(USER, PASSWORD)
        car.tls_set(authority.path)
        car.connect("127.0.0.1", port)
        car.loop_start()
        for number in range(count):
            said = {"event_time": now, "session": now, "sequence": number, "speed": 1}
            sent = car.publish(f"vehicles/secured-{now}/telemetry", json.dumps(said), 1)
        sent.wait_for_publish(DEADLINE_S)
        until(
            lambda: uplink.metrics()["cartwin_uplink_produced_total"] == count,
            lambda: f"{uplink.get('/readyz')} {uplink.metrics()}",
        )
        car.disconnect()
        car.loop_stop()
        assert PASSWORD not in "".join(path.read_text() for path in folder.glob("*.log"))
    finally:
        assert uplink.stop() == 0

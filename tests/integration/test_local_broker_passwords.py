"""Mosquitto with user names: a car's client id is its name, so it takes nobody's session."""

import os
import queue
import shutil
import subprocess

import paho.mqtt.client as paho
import pytest

from tests.stacks import need_mosquitto
from twin.local import mqtt, probe
from twin.local.access import UPLINK
from twin.local.broker_config import BrokerSettings, Need
from twin.local.ports import HOST, PortPicker
from twin.local.process import spawn, stop_all

pytestmark = pytest.mark.integration

DEADLINE_S = 20


@pytest.fixture
def settings(tmp_path):
    """A broker in mode password that knows the uplink and car-1."""
    need_mosquitto()
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed.")
    picker = PortPicker()
    made = BrokerSettings(
        Need(rate=100, outage_s=100),
        tmp_path,
        mode="password",
        port=picker.free(),
        services_port=picker.free(),
        user="root" if os.geteuid() == 0 else None,
    )
    command = mqtt.start_command("mosquitto", made, os.environ)
    (tmp_path / "users").touch()
    for name in (UPLINK, "car-1"):
        subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", name, "secret"], check=True)
    child = spawn("mosquitto", command, os.environ, tmp_path / "log")
    try:
        for port in (made.port, made.services_port):
            probe.wait_ready(
                "mosquitto", lambda port=port: attempt(port), 30, child=child, watched=[child]
            )
        yield made
    finally:
        stop_all([child], 30)


def attempt(port):
    """None when somebody listens, else why not."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    try:
        client.connect(HOST, port)
    except OSError as error:
        return str(error)
    client.disconnect()
    return None


def connected(port, user, client_id):
    """A client whose messages are in `inbox`, and whose disconnects are in `ends`."""
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
    )
    client.username_pw_set(user, "secret")
    client.inbox, client.ends, answers = queue.Queue(), queue.Queue(), queue.Queue()
    client.on_connect = lambda _c, _u, _f, reason, _p: answers.put(reason.value)
    client.on_subscribe = lambda *_: answers.put("subscribed")
    client.on_message = lambda _c, _u, message: client.inbox.put(message.topic)
    client.on_disconnect = lambda *_: client.ends.put("ended")
    client.connect(HOST, port)
    client.loop_start()
    assert answers.get(timeout=DEADLINE_S) == 0
    if user == UPLINK:
        client.subscribe("vehicles/+/telemetry", 1)
        assert answers.get(timeout=DEADLINE_S) == "subscribed"
    return client


def test_a_car_cannot_take_the_session_of_a_service(settings):
    """Whatever client id it says; the service's two sessions live on beside each other."""
    services = [
        connected(settings.services_port, UPLINK, f"cartwin-uplink-{number}") for number in (0, 1)
    ]
    car = connected(settings.port, "car-1", "cartwin-uplink-0")
    car.publish("vehicles/car-1/telemetry", b"{}", 1).wait_for_publish(DEADLINE_S)
    for service in services:
        assert service.inbox.get(timeout=DEADLINE_S) == "vehicles/car-1/telemetry"
        assert service.ends.empty()
    for client in (*services, car):
        client.disconnect()
        client.loop_stop()

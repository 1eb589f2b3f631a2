"""The road from car to Kafka under load: broker, bridge and Kafka are killed, frozen and slowed.

Each run prints sent / acknowledged / in Kafka / lost, on each broker. What is lost must be nothing,
but for a killed broker and cars without a store: there it is counted, and the gaps in Kafka are what
the cars' logs say. HiveMQ takes seconds to start, up to 12 on two busy cores: so it is killed less
often than the others and with half of the cars.
"""

import json
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import pytest

from tests.ingest_faults import Road, Server, explained, frozen, sentence, wait_for
from tests.kafka_log import read_topic
from tests.processes import until
from tests.stacks import need_mosquitto

pytestmark = [pytest.mark.deep, pytest.mark.timeout(420)]

CARS = 100
INTERVAL_S = 0.25
WINDOW = 200
OUTAGE_S = 30.0
STORES = [5000, 0]
BROKER_KILLS = {"mosquitto": 5, "amqtt": 5, "hivemq": 3}
UNREAD = 800
"""Messages that a broker has acknowledged and the uplink has not taken, when it is killed."""


@pytest.fixture(params=BROKER_KILLS)
def broker(request):
    """Name of each broker in turn."""
    if request.param == "mosquitto":
        need_mosquitto()
    return request.param


@pytest.fixture
def start(broker, make_stack, tmp_path):
    """`start(store)`: a stack of its own, as a road that is about to be driven on."""

    def make(store, cars=CARS, **told):
        stack, endpoints = make_stack(mqtt=broker)
        road = Road(
            stack,
            endpoints,
            tmp_path,
            cars=cars,
            interval_s=INTERVAL_S,
            store=store,
            broker=broker,
            UPLINK_WINDOW=str(WINDOW),
            **told,
        )
        return Server(stack, "kafka", tmp_path), road

    return make


@pytest.fixture
def judged(broker, record_property):
    """`judged(what, road)`: the figures, printed; nothing may be left unexplained."""

    def judge(what, road):
        line = road.account()
        record_property("figures", sentence(f"{broker}, {what}", line))
        assert explained(line)
        assert line["rejected"] == line["held"] == line["dropped"] == 0
        assert line["sent"] > 20 * CARS
        return line

    return judge


@pytest.mark.parametrize("store", STORES)
def test_a_broker_killed_again_and_again(store, start, broker, judged):
    """With B lost 0; without B the count from sequence gaps equals what the cars' logs say."""
    kills = BROKER_KILLS[broker]
    _, road = start(store, cars=CARS // 2 if broker == "hivemq" else CARS)
    with road:
        for _ in range(kills):
            road.passes(1000)
            road.kill_broker(UNREAD)
        road.passes(1000)
        if store:
            road.catches_up()
        line = judged(f"broker killed {kills} times, store of {store}", road)
    if store:
        assert line["lost"] == line["gaps"] == 0
        assert line["again"] > 0
        return
    assert line["lost"] == line["gaps"]
    assert line["acknowledged"] == line["sent"] == line["kafka"] + line["lost"]
    if broker == "hivemq":
        # It writes at once what the others keep in memory, and a killed process takes no file with it.
        assert line["lost"] < UNREAD
    else:
        assert line["lost"] > kills * UNREAD // 2


@pytest.mark.parametrize("store", STORES)
def test_a_bridge_killed_twenty_times(store, start, judged):
    """Lost 0, whatever the cars keep: what the broker was not told to forget comes again."""
    _, road = start(store)
    with road:
        for _ in range(20):
            road.passes(300)
            road.uplink.kill()
            road.uplink.start()
        road.uplink.ready()
        road.passes(300)
        assert road.uplink.starts == 21
        line = judged(f"bridge killed 20 times, store of {store}", road)
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]


def waits(road):
    """What is under way stays bounded by the window, and the process says that it is not ready."""
    until(lambda: road.uplink.get("/readyz")[0] == 503, "the uplink does not miss Kafka")
    under_way = road.uplink.metrics()["cartwin_uplink_in_flight"]
    # What one read of the socket brought is taken whole; some that Kafka still took may wait for a
    # PUBACK before theirs, and hold a place in the window without being under way.
    assert 0 < under_way < 2 * WINDOW


@pytest.mark.parametrize(("how", "store"), [("frozen", 5000), ("killed", 0)])
def test_kafka_away_for_half_a_minute(how, store, start, judged):
    """The broker holds what comes, the bridge takes no more than its window and goes on by itself."""
    kafka, road = start(store)
    with road:
        road.passes(1000)
        if how == "frozen":
            with frozen(kafka.child.pid):
                waits(road)
                wait_for(OUTAGE_S - 10)
                waits(road)
        else:
            kafka.kill()
            waits(road)
            wait_for(OUTAGE_S - 10)
            waits(road)
            kafka.start()
        road.passes(5000)
        assert road.uplink.starts == 1
        line = judged(f"Kafka {how} for 30 s, store of {store}", road)
        kafka.stop()
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]


def test_a_slow_kafka(start, judged):
    """Kafka that stands still four fifths of the time slows the bridge and costs nothing else."""
    kafka, road = start(0)
    with road:
        road.passes(1000)
        for _ in range(60):
            with frozen(kafka.child.pid):
                wait_for(0.4)
            wait_for(0.1)
        road.passes(1000)
        assert road.uplink.starts == 1
        line = judged("slow Kafka", road)
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]


def test_a_flooding_car(start, broker, judged, record_property):
    """It gets its rate, each of its messages is in `telemetry` or rejected, others pay nothing."""
    rate, sent = 20, 3000
    _, road = start(0, UPLINK_VEHICLE_RATE=str(rate))
    with road:
        road.passes(1000)
        where = urlsplit(road.endpoints.mqtt[0])
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "flood")
        client.connect(where.hostname, where.port)
        client.loop_start()
        for number in range(sent):
            payload = json.dumps({"session": 7, "sequence": number + 1, "speed": 1})
            given = client.publish("vehicles/flood/telemetry", payload, 1)
            if number % 50 == 49:
                given.wait_for_publish(60)
                # It may come in no faster than it is taken: what waits at a broker is not limited.
                road.passes(50)
        client.disconnect()
        client.loop_stop()
        line = judged("a flooding car", road)
    through, above = (
        [record for record in read_topic(road.endpoints.kafka, topic) if record.key() == b"flood"]
        for topic in ("telemetry", "rejected")
    )
    record_property(
        "figures",
        f"{broker}, the flood: sent {sent}, in Kafka {len(through)}, rejected {len(above)}",
    )
    assert len(through) + len(above) == sent
    assert {dict(record.headers())["reason"] for record in above} == {b"rate_limited"}
    times = [int(dict(record.headers())["ingested-at"]) for record in (*through, *above)]
    seconds = (max(times) - min(times)) / 1000
    assert abs(len(through) - rate * (10 + seconds)) <= rate
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]

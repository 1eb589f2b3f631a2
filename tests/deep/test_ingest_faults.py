"""The road from car to Kafka under load: broker, bridge and Kafka are killed, frozen and slowed.

Each run prints sent / acknowledged / in Kafka / lost. What is lost must be nothing, but for a killed
broker and cars without a store: there it is counted, and the gaps in Kafka are what the cars' logs say.
"""

import pytest

from tests.ingest_faults import Road, Server, explained, frozen, sentence, wait_for
from tests.processes import until
from tests.stacks import need_mosquitto

pytestmark = [pytest.mark.deep, pytest.mark.timeout(420)]

CARS = 100
INTERVAL_S = 0.25
WINDOW = 200
OUTAGE_S = 30.0
STORES = [5000, 0]


@pytest.fixture
def start(make_stack, tmp_path):
    """`start(store)`: a stack of its own, as a road that is about to be driven on."""
    need_mosquitto()

    def make(store):
        stack, endpoints = make_stack(mqtt="mosquitto")
        road = Road(
            stack,
            endpoints,
            tmp_path,
            cars=CARS,
            interval_s=INTERVAL_S,
            store=store,
            UPLINK_WINDOW=str(WINDOW),
        )
        return Server(stack, "kafka", tmp_path), road

    return make


def judged(what, road, record_property):
    """The figures, printed; nothing may be left unexplained."""
    line = road.account()
    record_property("figures", sentence(what, line))
    assert explained(line)
    assert line["rejected"] == line["held"] == line["dropped"] == 0
    assert line["sent"] > 20 * CARS
    return line


@pytest.mark.parametrize("store", STORES)
def test_a_broker_killed_five_times(store, start, record_property):
    """With B lost 0; without B the count from sequence gaps equals what the cars' logs say."""
    _, road = start(store)
    with road:
        for _ in range(5):
            road.passes(1000)
            road.kill_broker(unread=800)
        road.passes(1000)
        line = judged(f"broker killed 5 times, store of {store}", road, record_property)
    if store:
        assert line["lost"] == line["gaps"] == 0
        assert line["again"] > 0
    else:
        assert line["lost"] == line["gaps"] > 5 * 400
        assert line["acknowledged"] == line["sent"] == line["kafka"] + line["lost"]


@pytest.mark.parametrize("store", STORES)
def test_a_bridge_killed_twenty_times(store, start, record_property):
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
        line = judged(f"bridge killed 20 times, store of {store}", road, record_property)
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
def test_kafka_away_for_half_a_minute(how, store, start, record_property):
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
        line = judged(f"Kafka {how} for 30 s, store of {store}", road, record_property)
        kafka.stop()
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]


def test_a_slow_kafka(start, record_property):
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
        line = judged("slow Kafka", road, record_property)
    assert line["lost"] == line["gaps"] == 0
    assert line["kafka"] == line["acknowledged"] == line["sent"]

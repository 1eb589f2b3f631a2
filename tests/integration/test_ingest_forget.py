"""A deleted twin stays deleted: its broker forgets the status that it retains for uplinks to come."""

import contextlib
import itertools
import time

import orjson
import pytest

from tests.integration.test_ingest_uplink import Tail, car, json_of, leave, ms, say
from tests.processes import Process, until
from twin.kit import kafka as kit_kafka
from twin.local.data import Endpoints
from twin.wire.partition import partition_of

pytestmark = pytest.mark.integration


@pytest.fixture(params=["amqtt", "mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)])
def broker(request):
    """URL of each broker in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def processes(kafka, redis_url, broker, tmp_path):
    """Uplink, downlink and worker, ready; they are ended with the test."""
    endpoints = Endpoints(api=None, mqtt=(broker,), kafka=kafka, redis=redis_url, pid=0)
    made = {name: Process(name, endpoints, tmp_path) for name in ("worker", "downlink", "uplink")}
    with contextlib.ExitStack() as started:
        for process in made.values():
            started.callback(process.stop)
            process.start()
        for process in made.values():
            process.ready()
        yield made


@pytest.fixture
def tail(kafka):
    """What is said of cars and twins from now on."""
    found = Tail(kafka, "presence", "twins", "deliveries", "rejected")
    yield found
    found.close()


def test_a_deleted_twin_does_not_come_back_with_the_next_uplink(kafka, broker, processes, tail):
    """Its retained status is cleared, which the uplink hears, counts and passes over; what the car says
    afterwards makes a twin again."""
    vehicle_id, now = f"forget-{ms()}", ms()
    client = car(broker, vehicle_id)
    birth = {"state": "online", "session": now, "at": now}
    say(client, f"vehicles/{vehicle_id}/status", birth, retain=True)
    assert json_of(tail.of("twins", vehicle_id, 1)[-1])["presence"]["state"] == "online"

    key = vehicle_id.encode()
    delete = {
        "request_id": f"r-{vehicle_id}",
        "kind": "delete",
        "vehicle_id": vehicle_id,
        "at": ms(),
    }
    producer = kit_kafka.producer(kafka, "test")
    producer.produce("requests", orjson.dumps({**delete, "by": "test", "body": {}}), key)
    producer.flush(30)
    (told,) = tail.of("deliveries", vehicle_id, 1)
    assert (json_of(told)["kind"], json_of(told)["state"]) == ("forget", "sent")
    tail.until("twins", lambda found: any(m.key() == key and m.value() is None for m in found))
    uplink = processes["uplink"]
    until(lambda: uplink.metrics()["cartwin_uplink_cleared_total"] >= 1, "no empty status came")

    assert uplink.stop() == 0
    uplink.start().ready()
    # What is retained comes with the subscription, so before anything that is said from now on, and
    # the partition keeps that order.
    place = partition_of(key, 12)
    names = (f"marker-{ms()}-{number}" for number in itertools.count())
    marker = next(name for name in names if partition_of(name.encode(), 12) == place)
    say(client, f"vehicles/{marker}/status", birth)
    tail.of("twins", marker, 1)
    assert len(tail.of("presence", vehicle_id, 1)) == 1
    assert [m for m in tail.records["twins"] if m.key() == key][-1].value() is None
    assert not [m for m in tail.records["rejected"] if m.key() == key]

    again = {**birth, "session": now + 1, "at": time.time_ns() // 1_000_000}
    say(client, f"vehicles/{vehicle_id}/status", again, retain=True)
    tail.until("twins", lambda found: [m for m in found if m.key() == key][-1].value() is not None)
    leave(client)

"""An uplink at one broker: its queue is tried, faults are named, a worker leaves in order."""

import asyncio

import pytest

from ingest import probe, shard
from ingest.acks import Acks, Asked
from ingest.errors import ConnectionLost, KafkaRefused
from ingest.relay import Relay, Told, read
from ingest.settings import UplinkSettings
from ingest.shard import Shard
from twin.kit.mqtt_address import Broker

BROKER = Broker("nowhere", 1883)
QUEUE = f"{BROKER} queue"


class FakeClient:
    """A client whose connection and farewell the test decides; `did` is what it was told."""

    def __init__(self, did, trouble=None):
        self.broker = BROKER
        self.client_id = "up"
        self.connector = None
        self.level = 5
        self.fault = ""
        self.fresh = asyncio.Event()
        self.did = did
        self._trouble = trouble

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def faults(self):
        return {str(BROKER): self.fault} if self.fault else {}

    async def connected(self):
        pass

    def publish_once(self, topic, payload):
        self.did.append((topic, read(payload)))

    def hold(self):
        self.did.append("hold")

    async def leave(self):
        self.did.append("leave")
        if self._trouble:
            raise self._trouble

    async def end_session(self):
        self.did.append("end session")


class FakeOutbox:
    """Drained at once, or never by Kafka's will."""

    def __init__(self, did, trouble=None):
        self._did = did
        self._trouble = trouble

    async def drained(self):
        self._did.append("drained")
        if self._trouble:
            raise self._trouble


def made(monkeypatch, *, worker=0, workers=1, **client):
    monkeypatch.setenv("UPLINK_WORKERS", str(workers))
    monkeypatch.setenv("UPLINK_WORKER", str(worker))
    found = Shard(
        UplinkSettings(),
        0,
        BROKER,
        lambda *_: None,
        on_left=lambda *_: None,
        told=Relay(worker),
        acks=Acks(),
    )
    found.client = FakeClient([], **client)
    return found


def kept(monkeypatch, *answers):
    """The broker keeps so many at each try, or the try fails so; returns the tries."""
    left, tries = list(answers), []

    async def keeps(_connector, level, client_id, count):
        tries.append((level, client_id, count))
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(probe, "keeps", keeps)
    return tries


async def until(condition):
    """Return when it holds; fails at the deadline."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def test_a_queue_is_tried_until_it_is_long_enough_and_again_when_the_broker_forgot(monkeypatch):
    """Not ready before the first try and after a bad one; a broker without our session is tried."""
    monkeypatch.setattr(shard, "AGAIN_S", 0.01)
    tries = kept(monkeypatch, 1000, ConnectionLost("gone"), 2000, 1999)

    async def play():
        found = made(monkeypatch)
        assert "was not tried yet" in found.faults()[QUEUE]
        async with found:
            await until(lambda: "kept 1000" in found.faults().get(QUEUE, ""))
            await until(lambda: "cannot be tried: gone" in found.faults().get(QUEUE, ""))
            await until(lambda: not found.faults())
            assert len(tries) == 3
            found.client.fresh.set()
            await until(lambda: "of 2000 messages the broker kept 1999" in str(found.faults()))

    asyncio.run(play())
    assert set(tries) == {(5, "up", 2000)}


def test_a_broker_that_is_not_there_has_one_fault(monkeypatch):
    """What it keeps is no question before it is connected."""
    found = made(monkeypatch)
    found.client.fault = "no TCP connection"
    assert found.faults() == {str(BROKER): "no TCP connection"}


@pytest.mark.parametrize(("worker", "probes"), [(1, "2000"), (0, "0")])
def test_only_worker_0_tries_and_only_if_asked(monkeypatch, worker, probes):
    """One try a shard is enough; 0 messages are none."""
    monkeypatch.setenv("UPLINK_QUEUE_PROBE", probes)
    tries = kept(monkeypatch)

    async def play():
        async with (found := made(monkeypatch, worker=worker, workers=2)):
            await asyncio.wait((found._trial,))
            assert found.faults() == {}

    asyncio.run(play())
    assert tries == []


TOPIC = "cartwin/probe/cartwin-uplink-0-workers"


def stopped(found, kafka=None):
    """What it did at its end, beside telling that it runs."""

    async def play():
        async with found:
            await until(lambda: found.client.did)
            found.client.did.clear()
            await found.stop(FakeOutbox(found.client.did, kafka))

    asyncio.run(play())
    return found.client.did


def test_a_worker_tells_that_it_runs_and_what_kafka_has_of_cars(monkeypatch):
    """As soon as it is connected and then twice a second, whether there is something to claim or not."""
    monkeypatch.setattr("ingest.relay.EVERY_S", 0.001)
    relay = Relay(2)
    found = made(monkeypatch, worker=2, workers=3)
    found._told = relay

    async def play():
        async with found:
            await until(lambda: len(found.client.did) > 1)
            assert {(topic, told.worker) for topic, told in found.client.did} == {(TOPIC, 2)}
            assert not any(told.claims for _, told in found.client.did)
            relay.safe(b"car-1", Asked(7, 3, 3), 0)
            await until(lambda: found.client.did[-1][1].claims or found.client.did[-2][1].claims)

    asyncio.run(play())


def test_what_a_worker_tells_reaches_the_cars_of_its_shard(monkeypatch):
    """Worker 0 tells cars what others saw; what is no worker's word is warned of and nothing else."""
    found = made(monkeypatch, workers=2)
    relay = Relay(1)
    for number in (1, 2, 4):
        relay.safe(b"car-1", Asked(7, number, 1), 0)
    for message in (b"nonsense", b'{"worker":1}', *relay.messages(0)):
        found._heard(message)
    assert [(ack.topic, ack.payload) for ack in found._acks.due()] == [
        ("vehicles/car-1/ack", b'{"session":7,"upto":2}')
    ]


def test_worker_0_keeps_its_session_and_the_others_end_theirs(monkeypatch):
    """Only after Kafka has all that a session held is it ended."""
    assert stopped(made(monkeypatch, workers=2)) == ["hold", "drained"]
    last = (TOPIC, Told(1, []))
    assert stopped(made(monkeypatch, worker=1, workers=2)) == [
        *("leave", "drained", last, "end session")
    ]


def test_a_worker_that_cannot_leave_keeps_its_session(monkeypatch):
    """What is left at the broker waits for its return; what it has goes to Kafka all the same."""
    found = made(monkeypatch, worker=1, workers=2, trouble=ConnectionLost("gone"))
    assert stopped(found) == ["leave", "hold", "drained"]


def test_a_session_is_not_ended_over_what_kafka_refuses(monkeypatch):
    """The error ends the process, and the broker keeps the messages."""
    found = made(monkeypatch, worker=1, workers=2)
    with pytest.raises(KafkaRefused):
        stopped(found, KafkaRefused("never"))
    assert found.client.did == ["leave", "drained"]

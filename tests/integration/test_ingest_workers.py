"""Several uplinks at one broker: they share telemetry, come and go, and lose nothing."""

import asyncio
import json
import time
from collections import Counter
from contextlib import ExitStack

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from ingest import leaving, probe
from ingest.access import Access
from ingest.connector import Connector
from ingest.errors import ConnectionLost
from ingest.mqtt import Client
from ingest.orphans import QUIET, Orphans
from ingest.settings import parse_brokers
from ingest.topology import SHARED, Topology
from tests.mosquittos import PLENTY, own_mosquitto
from tests.processes import Process, until
from twin.local.data import Endpoints
from twin.wire.codec import decode_telemetry

pytestmark = pytest.mark.integration

CARS = 50
DEADLINE_S = 30

__all__ = ["own_mosquitto"]


class Fleet:
    """Cars that publish in rounds, one message each, and what of it is in Kafka."""

    def __init__(self, url, kafka):
        self.session = time.time_ns() // 1_000_000
        self.round = 0
        self.seen = Counter()
        self._client = client(url, f"fleet-{self.session}")
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": "fleet"})
        known = self._consumer.list_topics("telemetry", timeout=30).topics["telemetry"]
        places = [TopicPartition("telemetry", number) for number in known.partitions]
        for place in places:
            place.offset = until(lambda place=place: self._end(place), f"no end of {place}")[0]
        self._consumer.assign(places)

    def _end(self, place):
        """(end offset,), or nothing before Kafka has chosen a leader for a new partition."""
        try:
            return self._consumer.get_watermark_offsets(place, timeout=30)[1:]
        except KafkaException:
            return None

    def drive(self, rounds):
        """Publish; returns the round numbers once the broker has them all."""
        told = range(self.round, self.round + rounds)
        self.round += rounds
        for number in told:
            said = {"event_time": self.session, "session": self.session, "sequence": number}
            payload = json.dumps({**said, "speed": 1})
            sent = [
                self._client.publish(f"vehicles/{self.name(car)}/telemetry", payload, 1)
                for car in range(CARS)
            ]
            for each in sent:
                each.wait_for_publish(DEADLINE_S)
        return told

    def name(self, car):
        return f"shared-{self.session}-{car}"

    def arrived(self, rounds):
        """Wait until Kafka has all messages of these rounds; how often it has each."""
        wanted = {(self.name(car), number) for car in range(CARS) for number in rounds}
        until(
            lambda: self._read() and wanted <= self.seen.keys(),
            lambda: f"{len(wanted - self.seen.keys())} of {len(wanted)} are not in Kafka",
            DEADLINE_S,
        )
        return [self.seen[each] for each in wanted]

    def _read(self):
        for message in self._consumer.consume(1000, 0.05):
            if message.key().startswith(f"shared-{self.session}-".encode()):
                self.seen[message.key().decode(), decode_telemetry(message.value()).sequence] += 1
        return True

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()
        self._consumer.close()


def client(url, client_id, *, clean=True):
    """A connected paho client; `client.present` tells whether the broker had its session."""
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean)
    made.max_inflight_messages_set(CARS)
    made.present = None

    def connected(made, _data, flags, _code, _said):
        made.present = flags.session_present

    made.on_connect = connected
    host, _, port = url.removeprefix("mqtt://").partition(":")
    made.connect(host, int(port))
    made.loop_start()
    until(lambda: made.present is not None, "no CONNACK", DEADLINE_S)
    return made


def session_is_there(url, client_id):
    """Whether a broker keeps a session under a name; it is gone afterwards."""
    asking = client(url, client_id, clean=False)
    asking.disconnect()
    asking.loop_stop()
    ending = client(url, client_id)
    ending.disconnect()
    ending.loop_stop()
    return asking.present


@pytest.fixture
def uplink(kafka, tmp_path):
    """Start uplinks that end with the test: `uplink(url, worker, workers)`."""
    with ExitStack() as started:

        def start(url, worker=0, workers=1, **told):
            folder = tmp_path / f"uplink-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            made = Process(
                "uplink",
                Endpoints(None, (url,), kafka, "", 0),
                folder,
                UPLINK_WORKER=str(worker),
                UPLINK_WORKERS=str(workers),
                **told,
            )
            made.folder = folder
            started.callback(made.stop)
            return made.start()

        yield start


@pytest.fixture
def fleet(kafka):
    """Make fleets that are closed with the test."""
    with ExitStack() as made:

        def make(url):
            cars = Fleet(url, kafka)
            made.callback(cars.close)
            return cars

        yield make


def log_of(process):
    return "".join(path.read_text() for path in sorted(process.folder.glob("*.log")))


def received(process):
    """Messages of telemetry; a broker of other tests, too, may retain their cars' status."""
    _, text = process.get("/metrics")
    name = 'cartwin_uplink_received_total{kind="telemetry"} '
    return sum(float(line[len(name) :]) for line in text.splitlines() if line.startswith(name))


def balances(process):
    """received = produced + rejected + in flight, once nothing is in flight any more."""
    name = "cartwin_uplink_{}".format
    found = process.metrics()
    return (
        found
        and found[name("in_flight")] == 0
        and found[name("received_total")]
        == (found[name("produced_total")] + found[name("rejected_total")])
    )


@pytest.mark.parametrize(
    "broker", ["own_mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)]
)
def test_workers_come_and_go_and_nothing_is_lost(request, uplink, fleet, broker):
    """1 -> 2 workers -> one killed and back -> one stopped for good -> 1: all there, none doubled."""
    found = request.getfixturevalue(broker)
    url = found if broker == "hivemq" else found.start(*PLENTY).url
    cars = fleet(url)
    alone = uplink(url).ready()
    assert set(cars.arrived(cars.drive(4))) == {1}
    assert alone.stop() == 0

    first, second = uplink(url, 0, 2).ready(), uplink(url, 1, 2).ready()
    assert set(cars.arrived(cars.drive(10))) == {1}, "a subscription is doubled"
    if broker == "own_mosquitto":
        # HiveMQ gives the second one something only when the first one's window is full.
        assert received(first) > 0
        assert received(second) > 0
    for each in (first, second):
        until(lambda each=each: balances(each), f"the account does not balance: {each.metrics()}")

    before = cars.drive(10)
    second.kill()
    meanwhile = cars.drive(10)
    second.start().ready()
    cars.arrived([*before, *meanwhile, *cars.drive(5)])

    under_way = cars.drive(10)
    assert second.stop() == 0
    assert set(cars.arrived([*under_way, *cars.drive(10)])) == {1}
    assert "left for good" in log_of(second)
    assert not session_is_there(url, "cartwin-uplink-0-1")

    assert first.stop() == 0
    alone = uplink(url).ready()
    assert set(cars.arrived(cars.drive(4))) == {1}, "a subscription of two workers is left"
    assert received(alone) == 4 * CARS


def test_a_broker_without_shared_subscriptions_is_read_by_one(amqtt, uplink, fleet):
    """amqtt: worker 0 reads all cars, the other is ready and stands by; both end in order."""
    first, second = uplink(amqtt, 0, 2).ready(), uplink(amqtt, 1, 2).ready()
    cars = fleet(amqtt)
    assert set(cars.arrived(cars.drive(4))) == {1}
    assert received(first) == 4 * CARS
    assert received(second) == 0
    assert '"role":"stands by"' in log_of(second).replace(": ", ":")
    assert "no shared subscriptions" in log_of(second)
    assert (first.stop(), second.stop()) == (0, 0)
    assert not session_is_there(amqtt, "cartwin-uplink-0-1")


def test_fewer_workers_take_over_from_a_killed_one_and_throw_out_nobody_who_runs(
    own_mosquitto, uplink, fleet
):
    """3 -> one killed -> worker 0 is told that it is the only one: all there, the killed one's session
    is gone, and the one that runs still has its own until it is stopped."""
    url = own_mosquitto.start(*PLENTY).url
    cars = fleet(url)
    first, second, third = (uplink(url, number, 3) for number in range(3))
    for each in (first, second, third):
        each.ready()
    cars.arrived(cars.drive(3))
    third.kill()
    held = cars.drive(6)
    first.kill()
    meanwhile = cars.drive(3)
    alone = uplink(url).ready()
    cars.arrived([*held, *meanwhile, *cars.drive(3)])
    until(lambda: "taken and ended" in log_of(alone), lambda: log_of(alone), DEADLINE_S)
    assert not session_is_there(url, "cartwin-uplink-0-2")
    cars.arrived(cars.drive(3))
    assert (second.starts, second.check()) == (1, True)
    assert "mqtt connection ended" not in log_of(second)
    assert second.stop() == 0
    assert set(cars.arrived(cars.drive(3))) == {1}
    until(lambda: balances(alone), lambda: f"the account does not balance: {alone.metrics()}")


ORPHAN = "cartwin-uplink-0-1"
NONE = "cartwin-uplink-0-2"


class Adopting:
    """Worker 0's look at number 1, in a loop of its own; receipts are given when the test says so."""

    def __init__(self, url, level):
        self.taken = []
        self.orphans = Orphans(0, Topology(), connector(url), self._take, 20)
        self._level = level
        for _ in range(QUIET):
            self.orphans.roll.heard(0)

    def _take(self, message, receipt):
        self.taken.append((message.payload, receipt))

    async def look(self, count):
        """Look at number 1 and, when it has so many messages, give their receipts; at number 2."""
        looking = asyncio.ensure_future(self.orphans.look(self._level))
        await self.until(lambda: len(self.taken) == count)
        assert not looking.done(), "a session is ended over what Kafka does not have"
        self.give()
        await looking
        await self.orphans.look(self._level)

    def give(self):
        for _, receipt in self.taken:
            receipt.ack()

    def is_thrown_out(self):
        """Of the connection that the messages came by."""
        return self.taken[0][1]._receipt._connection.closed.done()

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)


def orphan(url, count):
    """A worker's session that was left with messages; what else it may have: a mark of its own."""
    left = client(url, ORPHAN, clean=False)
    granted = []
    left.on_subscribe = lambda *said: granted.append(said)
    left.subscribe([(each, 1) for each in (*SHARED, probe.mark_topic(ORPHAN))])
    until(lambda: granted, "no SUBACK", DEADLINE_S)
    left.disconnect()
    left.loop_stop()
    say(url, b"a mark", topic=probe.mark_topic(ORPHAN))
    say(url, *(b"%d" % number for number in range(1, count + 1)))


def say(url, *payloads, topic="vehicles/car-1/telemetry"):
    speaking = client(url, "speaking")
    for payload in payloads:
        speaking.publish(topic, payload, 1).wait_for_publish(DEADLINE_S)
    speaking.disconnect()
    speaking.loop_stop()


@pytest.mark.parametrize("level", [4, 5])
def test_a_session_of_nobody_is_emptied_and_ended(own_mosquitto, level):
    """In order, its marks are no messages, it ends only when all are safe; asking for one that there
    is not leaves none."""
    url = own_mosquitto.start(*PLENTY).url
    orphan(url, 15)
    adopting = Adopting(url, level)
    asyncio.run(adopting.look(15))
    assert [payload for payload, _ in adopting.taken] == [b"%d" % n for n in range(1, 16)]
    assert not session_is_there(url, ORPHAN)
    assert not session_is_there(url, NONE)


@pytest.mark.parametrize("level", [4, 5])
def test_a_worker_that_comes_back_keeps_its_session(own_mosquitto, level):
    """It throws worker 0 out in the middle of taking: its session is not ended, nor asked for again."""
    url = own_mosquitto.start(*PLENTY).url
    orphan(url, 5)
    adopting = Adopting(url, level)

    async def play():
        looking = asyncio.ensure_future(adopting.orphans.look(level))
        await adopting.until(lambda: len(adopting.taken) == 5)
        back = await asyncio.to_thread(client, url, ORPHAN, clean=False)
        await adopting.until(adopting.is_thrown_out)
        adopting.give()
        await looking
        return back

    back = asyncio.run(play())
    assert back.present
    assert adopting.orphans.roll.due() == 2
    back.disconnect()
    back.loop_stop()
    assert session_is_there(url, ORPHAN)


def test_a_worker_whose_session_was_emptied_meanwhile_shares_again(own_mosquitto, monkeypatch):
    """It was away for so long that it seemed gone, and knows its subscriptions, not that they ended."""
    url = own_mosquitto.start(*PLENTY).url
    (broker,) = parse_brokers(url)
    adopting, heard = Adopting(url, 5), []
    emptied, take_the_rest = asyncio.Event(), leaving.take_the_rest

    async def rest(*told):
        await take_the_rest(*told)
        emptied.set()

    monkeypatch.setattr(leaving, "take_the_rest", rest)

    def take(message, receipt):
        receipt.ack()
        heard.append(message.payload)

    async def play():
        async with Client(broker, ORPHAN, topology=Topology(1, 2), on_message=take) as away:
            await away.connected()
            back, opens = asyncio.Event(), away.connector.open

            async def later(*told):
                await back.wait()
                return await opens(*told)

            away.connector.open = later
            await asyncio.to_thread(say, url, b"before")
            await adopting.until(lambda: heard)
            away._connection.close(ConnectionLost("cut"))
            await adopting.until(lambda: away.fault)
            await asyncio.to_thread(say, url, b"left")
            looking = asyncio.ensure_future(adopting.orphans.look(5))
            await adopting.until(lambda: adopting.taken)
            await emptied.wait()
            back.set()
            await away.connected()
            adopting.give()
            await looking
            await asyncio.to_thread(say, url, b"after")
            await adopting.until(lambda: b"after" in heard)

    asyncio.run(play())


def test_a_car_is_told_what_all_workers_together_saw(own_mosquitto, uplink, tmp_path):
    """Its messages are dealt out to two workers, and it hears of all of them in the end."""
    url, vehicle_id = own_mosquitto.start(*PLENTY).url, f"ack-{time.time_ns()}"
    workers = [uplink(url, number, 2, UPLINK_ACK_S="0.1") for number in range(2)]
    for each in workers:
        each.ready()
    heard, subscribed = [], []
    car = client(url, vehicle_id)
    car.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload))
    car.on_subscribe = lambda *said: subscribed.append(said)
    car.subscribe(f"vehicles/{vehicle_id}/ack", 1)
    until(lambda: subscribed, "no SUBACK", DEADLINE_S)
    before = [received(each) for each in workers]
    for number in range(1, 41):
        body = {"session": 7, "sequence": number, "held_from": 1, "speed": 1}
        car.publish(f"vehicles/{vehicle_id}/telemetry", json.dumps(body), 1)
    until(lambda: {"session": 7, "upto": 40} in heard, lambda: heard, DEADLINE_S)
    assert sorted(ack["upto"] for ack in heard) == [ack["upto"] for ack in heard]
    taken = [received(each) - was for each, was in zip(workers, before, strict=True)]
    assert sum(taken) == 40, "what workers tell each other is no message of a car"
    assert min(taken) > 0
    for each in workers:
        until(lambda each=each: balances(each), lambda each=each: each.metrics())
    assert [each.metrics()["cartwin_uplink_rejected_total"] for each in workers] == [0, 0]
    car.disconnect()
    car.loop_stop()


def connector(url):
    (broker,) = parse_brokers(url)
    return Connector(broker, Access())


def test_whether_a_broker_of_3_1_1_can_share_is_found_out(own_mosquitto, amqtt):
    """It cannot say so: Mosquitto, spoken to in 3.1.1, shares; amqtt takes the filter for a topic."""
    own_mosquitto.start()
    assert asyncio.run(probe.shares(connector(own_mosquitto.url), "asking")) is True
    assert asyncio.run(probe.shares(connector(amqtt), "asking")) is False


@pytest.mark.parametrize("level", [4, 5])
def test_how_much_a_broker_keeps_is_counted(own_mosquitto, level):
    """Enough, or what its limit lets through; nothing of the question is left at the broker."""
    url = own_mosquitto.start("max_queued_messages 100").url
    assert asyncio.run(probe.keeps(connector(url), level, "asking", 50)) == 50
    # Those that would be in flight count besides, 20 by default.
    assert 100 <= asyncio.run(probe.keeps(connector(url), level, "asking", 300)) <= 120
    assert not session_is_there(url, "asking-probe")
    assert not session_is_there(url, "asking-speaker")


def test_amqtt_keeps_enough(amqtt, uplink):
    """The uplink is ready at it, and the question was no drop."""
    process = uplink(amqtt, UPLINK_QUEUE_PROBE="2000").ready()
    assert process.metrics()["cartwin_broker_dropped"] == 0
    assert not session_is_there(amqtt, "cartwin-uplink-0-probe")


def test_a_queue_that_is_too_short_is_found_out_and_its_drops_are_counted(own_mosquitto, uplink):
    """Mosquitto with 1,000 queued messages: not ready, says why; ready when it was given more."""
    short = ("max_queued_messages 1000", "sys_interval 1")
    url = own_mosquitto.start(*short).url
    process = uplink(url, UPLINK_QUEUE_PROBE="2000")

    def why():
        status, text = process.get("/readyz")
        return status == 503 and json.loads(text)["why"].get(f"{url} queue", "")

    said = until(lambda: "kept" in (why() or "") and why(), lambda: process.get("/readyz"))
    assert "max_queued_messages" in said

    absent = client(url, "absent", clean=False)
    granted = []
    absent.on_subscribe = lambda *said: granted.append(said)
    absent.subscribe("lost", 1)
    until(lambda: granted, "no SUBACK", DEADLINE_S)
    absent.disconnect()
    absent.loop_stop()
    speaking = client(url, "speaking")
    sent = [speaking.publish("lost", b"x", 1) for _ in range(1500)]
    for each in sent:
        each.wait_for_publish(DEADLINE_S)
    speaking.disconnect()
    speaking.loop_stop()
    # 1,000 stay in the queue, and up to 20 besides count as in flight.
    until(
        lambda: 480 <= process.metrics()["cartwin_broker_dropped"] <= 500,
        lambda: f"drops: {process.metrics()['cartwin_broker_dropped']}",
    )
    assert "the broker drops messages" in log_of(process)

    own_mosquitto.stop()
    own_mosquitto.start(*PLENTY)
    process.ready()

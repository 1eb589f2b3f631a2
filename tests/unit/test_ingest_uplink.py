"""The uplink between a connection and Kafka, with a producer whose reports the test holds back."""

import asyncio
import json
import threading

import pytest
from confluent_kafka import KafkaError, KafkaException
from prometheus_client import REGISTRY, generate_latest

from ingest.errors import KafkaRefused
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.uplink import Uplink
from tests.fake_clock import FakeClock
from twin.kit import metrics
from twin.wire.codec import decode_telemetry


class HeldProducer:
    """A Kafka producer that reports deliveries only when the test says so."""

    def __init__(self):
        self.records = []
        self.refusal = None

    def produce(self, topic, value, key, *, on_delivery, headers):
        if self.refusal is not None:
            raise self.refusal
        self.records.append((topic, key, value, on_delivery))

    def poll(self, timeout):
        return 0

    def report(self, number, error=None):
        self.records[number][3](error, None)


class Receipts:
    """Receipts that remember the order in which they were given back."""

    def __init__(self):
        self.acked = []

    def __call__(self, name):
        receipt = type("Receipt", (), {})()
        receipt.ack = lambda: self.acked.append(name)
        return receipt


def scraped():
    """Received, produced, rejected, in flight, of one scrape."""
    families = {family.name: family for family in metrics.UPLINK_ACCOUNT.collect()}
    return tuple(
        sum(sample.value for sample in families[f"cartwin_uplink_{name}"].samples)
        for name in ("received", "produced", "rejected", "in_flight")
    )


def account(outbox):
    """As scraped, but in flight is what the outbox says."""
    return *scraped()[:3], len(outbox)


def counted(counter):
    """What a counter without labels says."""
    (family,) = counter.collect()
    return family.samples[0].value


def playing(play):
    """Run `play(uplink, producer, outbox, receipts)` in a loop."""

    async def run():
        producer, receipts = HeldProducer(), Receipts()
        outbox = Outbox(producer)
        try:
            return await play(Uplink(outbox, "enforce", FakeClock()), producer, outbox, receipts)
        finally:
            outbox.close()

    return asyncio.run(run())


GOOD = Publish("vehicles/car-1/telemetry", b'{"coolant_temp":91}')
BAD = Publish("vehicles/car-1/telemetry", b"{")
LOST = Publish("nowhere", b"{}")


def test_a_receipt_is_given_back_only_when_kafka_has_the_record():
    """PUBACK may follow the delivery report, for accepted and rejected messages alike."""

    async def play(uplink, producer, outbox, receipts):
        uplink.receive(0, GOOD, receipts("good"))
        uplink.receive(0, BAD, receipts("bad"))
        assert [record[0] for record in producer.records] == ["telemetry", "rejected"]
        assert receipts.acked == []
        producer.report(1)
        assert receipts.acked == ["bad"]
        producer.report(0)
        assert receipts.acked == ["bad", "good"]

    playing(play)


def test_an_empty_status_is_counted_and_nothing_else():
    """It says nothing of the car, so Kafka gets nothing; other empty messages are rejected."""

    async def play(uplink, producer, outbox, receipts):
        before, cleared = account(outbox), counted(metrics.UPLINK_CLEARED)
        uplink.receive(0, Publish("vehicles/car-1/status", b""), receipts("status"))
        assert receipts.acked == ["status"]
        assert producer.records == []
        assert counted(metrics.UPLINK_CLEARED) == cleared + 1
        assert account(outbox) == before
        for topic in ("vehicles/car-1/reported", "vehicles/a b/status", "vehicles/car-1/telemetry"):
            uplink.receive(0, Publish(topic, b""), receipts(topic))
        uplink.receive(0, Publish("vehicles/car-1/status", b"", cut=999), receipts("cut"))
        assert [record[0] for record in producer.records] == ["rejected"] * 4
        assert counted(metrics.UPLINK_CLEARED) == cleared + 1

    playing(play)


def test_the_account_balances_after_every_step():
    """received = produced + rejected + in flight, whatever has come and gone."""

    async def play(uplink, producer, outbox, receipts):
        before = account(outbox)

        def balanced():
            received, produced, rejected, flying = (
                now - then for now, then in zip(account(outbox), before, strict=True)
            )
            assert received == produced + rejected + flying
            return received, produced, rejected, flying

        for message in (GOOD, BAD, LOST, GOOD):
            uplink.receive(0, message, receipts(""))
            balanced()
        assert balanced() == (4, 0, 0, 4)
        for number in (3, 1, 2, 0):
            producer.report(number)
            balanced()
        assert balanced() == (4, 2, 2, 0)

    playing(play)


def test_records_of_a_car_are_produced_in_the_order_of_receipt():
    """Kinds and cars interleave; what is produced has the order of what was received."""

    async def play(uplink, producer, outbox, receipts):
        for number in range(6):
            leaf = ("telemetry", "status")[number % 2]
            payload = {"session": number, "coolant_temp": 1, "state": "offline"}
            if leaf == "telemetry":
                del payload["state"]
            topic = f"vehicles/car-{number % 3}/{leaf}"
            uplink.receive(1, Publish(topic, json.dumps(payload).encode()), receipts(number))
        assert [key for _, key, _, _ in producer.records] == [b"car-%d" % (n % 3) for n in range(6)]

    playing(play)


def test_every_scrape_balances_while_messages_move():
    """A scrape in another thread never sees a message between two counters."""
    done, wrong = threading.Event(), []

    def scrape():
        while not done.is_set():
            received, produced, rejected, flying = scraped()
            if received != produced + rejected + flying or flying < 0:
                wrong.append((received, produced, rejected, flying))

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(20_000):
        metrics.UPLINK_ACCOUNT.received("telemetry")
        if number % 3:
            metrics.UPLINK_ACCOUNT.produced("telemetry")
        else:
            metrics.UPLINK_ACCOUNT.rejected("out_of_range")
    done.set()
    thread.join()
    assert wrong == []


def test_a_record_kafka_will_never_take_ends_the_process_without_its_receipt():
    """A delivery error fails the outbox and the message is never acknowledged."""

    async def play(uplink, producer, outbox, receipts):
        uplink.receive(0, GOOD, receipts("good"))
        producer.report(0, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no right"))
        with pytest.raises(KafkaRefused, match="telemetry: no right"):
            await asyncio.wait_for(outbox.drained(), 5)
        assert receipts.acked == []
        assert len(outbox) == 1

    playing(play)


def test_a_producer_that_takes_nothing_is_a_named_error():
    """A fatal producer raises `KafkaRefused`, which ends the process."""

    async def play(uplink, producer, outbox, receipts):
        producer.refusal = KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
        with pytest.raises(KafkaRefused):
            uplink.receive(0, GOOD, receipts("good"))
        assert receipts.acked == []
        assert len(outbox) == 0

    playing(play)


def test_records_wait_for_room_in_the_producer_in_order():
    """A full queue ends nothing: they count as under way, and none overtakes another."""

    async def play(uplink, producer, outbox, receipts):
        uplink.receive(0, GOOD, receipts("first"))
        producer.refusal = BufferError("full")
        uplink.receive(0, BAD, receipts("second"))
        producer.refusal = None
        uplink.receive(0, GOOD, receipts("third"))
        assert (len(producer.records), len(outbox)) == (1, 3)
        outbox._poll()
        assert [record[0] for record in producer.records] == ["telemetry", "rejected", "telemetry"]
        for number in range(3):
            producer.report(number)
        assert receipts.acked == ["first", "second", "third"]
        assert len(outbox) == 0

    playing(play)


def test_a_record_that_waited_and_is_refused_ends_the_process():
    """As one that is refused at once."""

    async def play(uplink, producer, outbox, receipts):
        producer.refusal = BufferError("full")
        uplink.receive(0, GOOD, receipts("good"))
        producer.refusal = KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
        with pytest.raises(KafkaRefused, match="fenced"):
            await asyncio.wait_for(outbox.drained(), 5)
        assert receipts.acked == []

    playing(play)


def test_a_message_may_be_as_long_as_is_set():
    """MESSAGE_MAX_BYTES; a longer one is kept on `rejected` under too_large."""
    payload = b'{"coolant_temp":91}'

    async def topics_of(most):
        producer = HeldProducer()
        outbox = Outbox(producer)
        message = Publish("vehicles/car-1/telemetry", payload)
        Uplink(outbox, "enforce", FakeClock(), most).receive(0, message, Receipts()(""))
        outbox.close()
        return producer.records[0][0]

    assert asyncio.run(topics_of(len(payload))) == "telemetry"
    assert asyncio.run(topics_of(len(payload) - 1)) == "rejected"


def test_numbers_given_by_the_bridge_grow_over_a_restart():
    """Telemetry without sequence gets larger numbers from a later process than from an earlier."""

    async def first_number(clock):
        producer = HeldProducer()
        outbox = Outbox(producer)
        Uplink(outbox, "enforce", clock).receive(0, GOOD, Receipts()(""))
        outbox.close()
        return decode_telemetry(producer.records[0][2]).sequence

    clock = FakeClock()
    earlier = asyncio.run(first_number(clock))
    clock.advance(1)
    assert asyncio.run(first_number(clock)) == earlier + 1000


def test_how_long_messages_took_is_told_as_a_histogram():
    """Each counts in the first bucket that is not below it and in all above; the sum is of all."""
    taken = metrics.Latencies("cartwin_test_seconds", "of this test")
    try:
        for seconds in (0.0005, 0.001, 0.3, 100.0):
            taken.observe(seconds)
        text = generate_latest(taken).decode()
    finally:
        REGISTRY.unregister(taken)
    said = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    count = {
        bound: said[f'cartwin_test_seconds_bucket{{le="{bound}"}}']
        for bound in ("0.001", "0.25", "0.5", "60.0", "+Inf")
    }
    assert count == {"0.001": "2.0", "0.25": "2.0", "0.5": "3.0", "60.0": "3.0", "+Inf": "4.0"}
    assert said["cartwin_test_seconds_count"] == "4.0"
    assert float(said["cartwin_test_seconds_sum"]) == pytest.approx(100.3015)

"""What is driven again: judged as of its first arrival, with its attempts, and done when Kafka has it."""

import asyncio
from typing import ClassVar

import pytest

from ingest.accept import accept
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.rate import RateLimit
from ingest.redrive import Redrive, judge
from ingest.settings import UplinkSettings
from ingest.window import Entry
from tests.fake_clock import FakeClock
from twin.wire import redrive, topics
from twin.wire.codec import decode_telemetry, parse_object

NOW = 1_700_000_000_000
ARRIVED = NOW - 3_600_000
TOPIC = "vehicles/car-1/telemetry"


def first(payload, topic=TOPIC, **more):
    """The record of a message that was rejected when it arrived."""
    judged = accept(
        Publish(topic, payload, **more), shard=3, ingested_at=ARRIVED, counter=1, mode="enforce"
    )
    assert judged.reason is not None
    return judged.record


def again(record, value=None, changed=False):
    """As the API sends it, judged by the uplink."""
    sent = redrive.again(
        record.key, value or record.value, record.headers, by="api", changed=changed
    )
    assert (sent.topic, sent.key) == (topics.REDRIVE, record.key)
    return judge(sent.value, sent.headers, now_ms=NOW, counter=77, mode="enforce")


def test_a_mended_message_is_accepted_as_of_its_first_arrival():
    """Without a time of its own it has that of its arrival, and the number it is given."""
    judged = again(first(b'{"speed":"fast"}'), b'{"speed":7}')
    assert judged.reason is None
    assert judged.record.topic == topics.TELEMETRY
    telemetry = decode_telemetry(judged.record.value)
    assert (telemetry.event_time, telemetry.sequence) == (ARRIVED, 77)
    assert dict(judged.record.headers)["ingested-at"] == b"%d" % ARRIVED


def test_what_fails_again_has_one_attempt_more_and_the_same_source():
    """Time after time; arrival, shard and who did it stay."""
    record = first(b'{"speed":"fast"}', content_type="application/json")
    for attempts in (2, 3, 4):
        judged = again(record)
        record = judged.record
        assert judged.reason == "bad_type"
        assert (record.topic, record.key, record.value) == (
            topics.REJECTED, b"car-1", b'{"speed":"fast"}',
        )  # fmt: skip
        headers = dict(record.headers)
        assert len(headers) == len(record.headers)
        assert headers.pop("detail")
        assert headers == {
            "reason": b"bad_type",
            "source": f"mqtt:{TOPIC}".encode(),
            "attempts": b"%d" % attempts,
            "ingested-at": b"%d" % ARRIVED,
            "content-type": b"application/json",
            "shard": b"3",
            "redriven-by": b"api",
        }


def test_a_clock_that_was_ahead_still_is():
    """Time does not mend it: an hour later the same message is as wrong."""
    payload = b'{"event_time":%d,"speed":1}' % (ARRIVED + 1_000_000)
    assert again(first(payload)).reason == "clock_ahead"
    assert again(first(payload), b'{"event_time":%d,"speed":1}' % ARRIVED).reason is None


def test_presence_names_the_broker_that_the_car_was_at():
    """Or commands would go to another one."""
    record = first(b'{"state":"online","session":1}', "vehicles/car-1/status")
    judged = again(record, b'{"state":"online","session":1,"at":5}')
    assert parse_object(judged.record.value)["shard"] == 3


def test_the_rate_limit_is_not_asked():
    """What it refused passes when somebody wishes so."""
    limit = RateLimit(0.1)
    message = Publish(TOPIC, b'{"speed":7}')
    judged = [
        accept(message, shard=0, ingested_at=ARRIVED, counter=n, mode="enforce", limit=limit)
        for n in range(3)
    ]
    assert [one.reason for one in judged] == [None, "rate_limited", "rate_limited"]
    detail = dict(judged[1].record.headers)["detail"].decode()
    assert "'car-1'" in detail
    assert "0.1 messages/s" in detail
    assert judged[1].record.value == message.payload
    assert all(again(one.record).reason is None for one in judged[1:])


@pytest.mark.parametrize("source", [None, b"", b"kafka:scores/1/2", b"\xff"])
def test_a_record_without_a_source_at_a_broker_is_rejected(source):
    """Whoever may write to the topic may write anything; nothing raises, and attempts grow."""
    headers = [("attempts", b"4"), ("ingested-at", b"x")]
    if source is not None:
        headers.append(("source", source))
    judged = judge(b"{}", headers, now_ms=NOW, counter=1, mode="enforce")
    assert (judged.reason, judged.record.topic) == ("unknown_topic", topics.REJECTED)
    told = dict(judged.record.headers)
    assert (told["attempts"], told["ingested-at"]) == (b"5", b"%d" % NOW)


@pytest.mark.parametrize("arrived", [b"", b"0", b"99999999999999", b"-5", b"1e3"])
def test_an_arrival_that_cannot_be_counts_as_now(arrived):
    """A forged header does not bring a message into the future."""
    headers = [("source", f"mqtt:{TOPIC}".encode()), ("ingested-at", arrived)]
    judged = judge(b'{"speed":1}', headers, now_ms=NOW, counter=1, mode="enforce")
    assert decode_telemetry(judged.record.value).event_time == NOW


def test_an_empty_message_is_rejected_again():
    """No value at all is as empty."""
    judged = judge(
        None, [("source", f"mqtt:{TOPIC}".encode())], now_ms=NOW, counter=1, mode="enforce"
    )
    assert judged.reason == "empty"


class Held:
    """A producer that reports when told."""

    def __init__(self):
        self.records = []

    def produce(self, topic, value, key, *, on_delivery, headers):
        self.records.append((topic, on_delivery))

    def poll(self, timeout):
        return 0


class Sent:
    """A record of topic redrive."""

    HEADERS: ClassVar = [("source", f"mqtt:{TOPIC}".encode()), ("attempts", b"1")]

    def value(self):
        return b'{"speed":1}'

    def headers(self):
        return self.HEADERS


def test_a_record_is_done_only_when_kafka_has_its_result():
    """Its offset is not committed before, and the numbers given grow."""

    async def play():
        producer = Held()
        outbox = Outbox(producer)
        redriving = Redrive(outbox, UplinkSettings(), FakeClock())
        entries = [Entry(offset) for offset in (5, 6)]
        for entry in entries:
            redriving.take((Sent(), entry))
        assert [entry.done for entry in entries] == [False, False]
        producer.records[1][1](None, None)
        assert [entry.done for entry in entries] == [False, True]
        assert len(outbox) == 1
        outbox.close()
        return producer.records

    assert [topic for topic, _ in asyncio.run(play())] == [topics.TELEMETRY] * 2

"""Records for the topic `rejected`: what they hold, and what is told of what was cut."""

import pytest
from confluent_kafka import KafkaError

from twin.kit import kafka
from twin.wire import rejected, topics
from twin.wire.errors import Malformed, TooLarge

ERROR = TooLarge("900 bytes; at most 800 are accepted")


def record(**changes):
    arguments = {"error": ERROR, "source": "kafka:scores/3/7", "at_ms": 11, "key": b"car-1"}
    return rejected.record(**{**arguments, "value": b"poison", **changes})


def test_a_record_carries_position_reason_and_the_original():
    """Bytes and headers are kept so that the record can be driven again."""
    key, value, headers = record(headers=[("ingested-at", b"5"), ("note", "text"), ("odd", None)])
    assert (key, value) == ("car-1", b"poison")
    assert headers == [
        ("reason", b"too_large"),
        ("detail", ERROR.detail.encode()),
        ("source", b"kafka:scores/3/7"),
        ("attempts", b"1"),
        ("ingested-at", b"11"),
        ("original-ingested-at", b"5"),
        ("original-note", b"text"),
        ("original-odd", b""),
    ]


@pytest.mark.parametrize(
    ("given", "header", "told"),
    [
        (None, [], None),
        (None, [("content-type", b"avro/binary")], b"avro/binary"),
        ("text/xml", [("content-type", b"avro/binary")], b"text/xml"),
        ("x" * 300, [], b"x" * 200),
    ],
)
def test_the_content_type_is_the_one_given_or_the_originals(given, header, told):
    """Without one there is no such header."""
    headers = dict(record(content_type=given, headers=header)[2])
    assert headers.get("content-type") == told


@pytest.mark.parametrize("key", [None, b"", b"\xff/", b"sensor", b"a/b", b"x" * 65, "ä".encode()])
def test_a_key_that_is_no_vehicle_id_is_not_passed_on(key):
    """The topic is keyed by vehicles only."""
    assert record(key=key)[0] is None


def test_an_original_without_a_value_has_none():
    """A tombstone stays one."""
    assert record(value=None)[1] is None


def test_a_long_detail_is_cut_between_characters():
    """One that does not fit is left out whole."""
    detail = "x" * (rejected.MAX_TEXT_BYTES - 1) + "ä"
    assert dict(record(error=Malformed(detail))[2])["detail"] == detail[:-1].encode()


def test_a_value_over_the_limit_is_cut_and_its_length_is_told():
    """One byte less stays whole."""
    whole = bytes(rejected.MAX_VALUE_BYTES)
    assert record(value=whole)[1] == whole
    assert "truncated" not in dict(record(value=whole)[2])
    _, value, headers = record(value=whole + b"x")
    assert value == whole
    assert dict(headers)["truncated"] == str(len(whole) + 1).encode()


def test_headers_that_do_not_fit_are_left_out_and_counted():
    """A header that is too long costs itself, not those behind it."""
    long = bytes(rejected.MAX_ORIGINAL_BYTES)
    headers = dict(record(headers=[("a", b"1"), ("long", long), ("b", b"2")])[2])
    assert headers["headers-truncated"] == b"1"
    assert (headers["original-a"], headers["original-b"]) == (b"1", b"2")
    assert "original-long" not in headers


def test_too_many_headers_are_left_out_and_counted():
    """The first ones stay."""
    many = [(f"n{number}", b"") for number in range(rejected.MAX_ORIGINALS + 3)]
    headers = [name for name, _ in record(headers=many)[2]]
    assert dict(record(headers=many)[2])["headers-truncated"] == b"3"
    assert headers[-1] == f"original-n{rejected.MAX_ORIGINALS - 1}"


def test_our_producer_takes_an_original_of_the_brokers_largest_size_with_the_reason():
    """Kafka's default limit for a batch is 1,048,588 bytes; librdkafka's own would refuse this."""
    key, value, headers = record(value=bytes(1_048_588), headers=[("h", bytes(500_000))])
    producer = kafka.producer("127.0.0.1:1", "test")
    told = []
    producer.produce(
        topics.REJECTED,
        value,
        key,
        headers=headers,
        on_delivery=lambda error, _: told.append(error),
    )
    producer.purge()
    producer.flush(5)
    assert [error.code() for error in told] == [KafkaError._PURGE_QUEUE]

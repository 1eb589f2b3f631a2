"""Rejected records driven again: attempts are counted, nothing of the original is lost or made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.wire import redrive, rejected, topics
from twin.wire.errors import Malformed
from twin.wire.redrive import NotRedrivable

ERROR = Malformed("no JSON")
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=40)), max_size=6)


def reject(headers=(), source="kafka:scores/1/2", value=b"{", **more):
    return rejected.record(
        error=ERROR, source=source, at_ms=7, key=b"car-1", value=value, headers=headers, **more
    )


@pytest.mark.parametrize(
    ("told", "counted"),
    [(None, 1), (b"1", 2), (b"41", 42), (b"", 1), (b"x", 1), (b"-1", 1), (b"9" * 7, 1), (b" 1", 1)],
)
def test_attempts_follow_the_header_of_who_drove_it_again(told, counted):
    """One more than it says; what is no count says nothing."""
    headers = dict(reject([] if told is None else [("attempts", told)])[2])
    assert headers["attempts"] == b"%d" % counted
    assert "original-attempts" not in headers


def test_who_drove_it_again_is_told_and_is_no_header_of_the_original():
    """The last one only."""
    headers = reject([("redriven-by", b"ann"), ("note", b"n")])[2]
    assert dict(headers)["redriven-by"] == b"ann"
    again = redrive.again(b"car-1", b"{", headers, by="bob")
    assert again.headers == [("note", b"n"), ("attempts", b"1"), ("redriven-by", b"bob")]


@given(HEADERS, st.integers(1, 5), st.sampled_from(sorted(redrive.SOURCES)))
def test_a_kafka_record_comes_back_as_it_was_however_often(headers, times, topic):
    """Same topic, key, bytes and headers each time; attempts grow by one."""
    own = [header for header in headers if header[0] not in ("attempts", "redriven-by")]
    given_headers = list(own)
    for attempts in range(1, times + 1):
        key, value, made = reject(given_headers, f"kafka:{topic}/3/4", b"\x00x")
        again = redrive.again(key.encode(), value, made, by="api")
        assert (again.topic, again.key, again.value) == (topic, b"car-1", b"\x00x")
        assert again.headers[:-2] == own
        assert again.headers[-2:] == [("attempts", b"%d" % attempts), ("redriven-by", b"api")]
        given_headers = again.headers


def test_a_message_of_a_car_takes_along_what_the_uplink_must_know():
    """Not the old reason: it is judged anew."""
    _, value, made = reject(
        [], "mqtt:vehicles/car-1/status", b"{}", shard=4, content_type="application/json"
    )
    again = redrive.again(b"car-1", value, made, by="api")
    assert again.topic == topics.REDRIVE
    assert dict(again.headers) == {
        "source": b"mqtt:vehicles/car-1/status",
        "attempts": b"1",
        "ingested-at": b"7",
        "content-type": b"application/json",
        "shard": b"4",
        "redriven-by": b"api",
    }


@given(st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=12)), max_size=8))
def test_whatever_a_record_says_is_read_and_sent_nowhere_strange(headers):
    """Anybody may write to the topic: nothing raises but `NotRedrivable`, and no changelog is written."""
    told = redrive.read(headers)
    assert told.attempts >= 1
    try:
        again = redrive.again(None, b"x", headers, by="api")
    except NotRedrivable:
        return
    assert again.topic in {topics.REDRIVE, *redrive.SOURCES}


@pytest.mark.parametrize("topic", ["twins", "ledger", "changes", "rejected", "redrive", "models"])
def test_topics_with_one_writer_are_never_written(topic):
    """Nor those that nobody rejects from."""
    with pytest.raises(NotRedrivable, match="telemetry"):
        redrive.again(b"car-1", b"x", reject(source=f"kafka:{topic}/0/1")[2], by="api")


def test_what_was_cut_is_sent_only_as_a_whole():
    """By the length limit of the topic, or by whoever received it."""
    for made in (
        reject(value=bytes(rejected.MAX_VALUE_BYTES + 1))[2],
        reject(whole_bytes=900)[2],
    ):
        with pytest.raises(NotRedrivable, match="beginning"):
            redrive.again(b"car-1", b"x", made, by="api")
        assert redrive.again(b"car-1", b"x", made, by="api", changed=True).value == b"x"

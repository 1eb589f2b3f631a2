"""Frames and outbox of the amqtt broker: nothing lost, nothing unbounded, order kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.local import mqtt_frame
from twin.local.amqtt_outbox import Outbox
from twin.local.mqtt_frame import BadFrame, Message, matches


def message(number: int, size: int = 1) -> Message:
    return Message("t", bytes([number % 256]) * size, 1)


def sent(outbox: Outbox) -> list[tuple[int, int, bool]]:
    """Packet id, number and again flag of what is due."""
    return [(packet_id, item.data[0], again) for packet_id, item, again in outbox.due()]


def test_no_more_than_the_window_is_in_flight():
    """The next one goes out when one is acknowledged."""
    outbox = Outbox(window=2, limit_bytes=10_000)
    assert all(outbox.offer(message(number)) for number in range(4))
    assert sent(outbox) == [(1, 0, False), (2, 1, False)]
    assert sent(outbox) == []
    outbox.acknowledge(2)
    assert sent(outbox) == [(3, 2, False)]


def test_unacknowledged_messages_go_out_again_first():
    """After a reconnect: the same packet ids, in order, then what waited."""
    outbox = Outbox(window=2, limit_bytes=10_000)
    for number in range(3):
        outbox.offer(message(number))
    assert len(sent(outbox)) == 2
    outbox.resume()
    assert sent(outbox) == [(1, 0, True), (2, 1, True)]
    outbox.resume()
    outbox.acknowledge(1)
    assert sent(outbox) == [(2, 1, True), (3, 2, False)]


def test_a_full_outbox_refuses_until_something_is_acknowledged():
    """The limit counts what waits and what is in flight."""
    outbox = Outbox(window=10, limit_bytes=3_000)
    assert [outbox.offer(message(number, 1_000)) for number in range(3)] == [True, True, False]
    sent(outbox)
    assert not outbox.offer(message(3, 1_000))
    outbox.acknowledge(1)
    outbox.acknowledge(1)
    assert outbox.offer(message(3, 1_000))
    assert not outbox.offer(message(4, 1_000))


def test_packet_ids_come_round_without_meeting_one_in_flight():
    """65,535 is followed by 1, or by the next that is free."""
    outbox = Outbox(window=2, limit_bytes=10_000)
    outbox.offer(message(0))
    assert sent(outbox) == [(1, 0, False)]
    for _ in range(65_534):
        outbox.offer(message(1))
        ((packet_id, _, _),) = sent(outbox)
        outbox.acknowledge(packet_id)
    outbox.offer(message(2))
    assert sent(outbox) == [(2, 2, False)]


@given(st.lists(st.sampled_from(["offer", "send", "cut", "ack first", "ack last"]), max_size=60))
def test_every_message_arrives_whatever_happens(steps):
    """Any mix of offers, sends, cuts and acknowledgements: each is seen, first sights in order."""
    outbox, offered, seen, open_ids = Outbox(window=3, limit_bytes=10**6), 0, [], []

    def send():
        for packet_id, item, again in outbox.due():
            assert again == (item.data[0] in seen)
            if not again:
                seen.append(item.data[0])
                open_ids.append(packet_id)

    for step in steps:
        if step == "offer":
            assert outbox.offer(message(offered))
            offered += 1
        elif step == "send":
            send()
        elif step == "cut":
            outbox.resume()
        elif open_ids:
            outbox.acknowledge(open_ids.pop(0 if step == "ack first" else -1))
    while len(outbox):
        send()
        while open_ids:
            outbox.acknowledge(open_ids.pop())
    assert seen == list(range(offered))


@given(
    st.text(st.characters(exclude_characters="+#$\0", exclude_categories=["Cs"]), min_size=1),
    st.binary(max_size=300),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.integers(1, 65_535),
)
def test_publish_is_read_as_it_was_written(topic, data, qos, retain, packet_id):
    """Topic, payload, QoS, retain flag and packet id survive."""
    written = Message(topic, data, qos, retain)
    packet = mqtt_frame.publish(written, packet_id)
    header = 2 + (packet[1] >= 0x80)
    assert mqtt_frame.read_publish(packet[0] & 0x0F, packet[header:]) == (
        written,
        packet_id if qos else 0,
    )


@given(st.integers(0, 15), st.binary(max_size=40))
def test_any_bytes_are_a_message_or_a_bad_frame(flags, body):
    """Nothing else is raised, whatever a client sends."""
    try:
        read, packet_id = mqtt_frame.read_publish(flags, body)
    except BadFrame:
        return
    assert read.topic
    assert (packet_id == 0) == (read.qos == 0)


@pytest.mark.parametrize(
    ("topic", "pattern", "selected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/+", True),
        ("a/b", "+/b", True),
        ("a/b", "#", True),
        ("a/b", "a/#", True),
        ("a", "a/#", True),
        ("a/b/c", "a/+", False),
        ("a", "a/+", False),
        ("a/", "a/+", True),
        ("a/b", "A/b", False),
        ("$SYS/x", "#", False),
        ("$SYS/x", "+/x", False),
        ("$SYS/x", "$SYS/#", True),
    ],
)
def test_topic_filters_select_as_the_standard_says(topic, pattern, selected):
    """MQTT 3.1.1, section 4.7."""
    assert matches(topic, pattern) is selected


@pytest.mark.parametrize(("size", "header"), [(0, 2), (127, 2), (128, 3), (16_383, 3), (16_384, 4)])
def test_frame_length_takes_as_many_bytes_as_it_needs(size, header):
    """Seven bits a byte."""
    assert len(mqtt_frame.frame(mqtt_frame.PUBLISH, b"x" * size)) == size + header

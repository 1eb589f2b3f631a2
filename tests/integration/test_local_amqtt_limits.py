"""What the amqtt broker cannot deliver it counts and tells, as Mosquitto does under $SYS."""

import asyncio
import contextlib

import pytest

from twin.local import amqtt_connection, mqtt_frame
from twin.local.amqtt_broker import Limits, LoopbackBroker
from twin.local.mqtt_frame import Message
from twin.local.ports import HOST, PortPicker

pytestmark = pytest.mark.integration

DEADLINE_S = 20


@contextlib.asynccontextmanager
async def served(**limits):
    """A broker in this process, and a function that connects to it: `connect(client_id, clean=)`."""
    port = PortPicker().free()
    broker = LoopbackBroker(HOST, port, Limits(**limits))
    await broker.start()
    writers = []

    async def connect(client_id, *, clean):
        reader, writer = await asyncio.open_connection(HOST, port)
        writers.append(writer)
        head = mqtt_frame.text("MQTT") + bytes((4, 2 if clean else 0, 0, 0))
        writer.write(mqtt_frame.frame(mqtt_frame.CONNECT, head + mqtt_frame.text(client_id)))
        assert (await reader.readexactly(4))[3] == 0
        return reader, writer

    try:
        yield broker, connect
    finally:
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await broker.close()


async def subscribe(reader, writer, pattern, qos):
    writer.write(mqtt_frame.frame(0x82, b"\0\1" + mqtt_frame.text(pattern) + bytes((qos,))))
    assert (await reader.readexactly(5))[4] == qos


async def publish(reader, writer, message):
    """Returns when the broker has acknowledged."""
    writer.write(mqtt_frame.publish(message, 1))
    assert await reader.readexactly(4) == b"\x40\x02\0\1"


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_a_full_outbox_of_an_absent_session_counts_what_it_drops():
    """The first messages are kept, the rest is counted, and the publisher is never blocked."""

    async def scenario():
        async with served(outbox_bytes=10_000) as (broker, connect):
            bridge = await connect("bridge", clean=False)
            await subscribe(*bridge, "t", 1)
            bridge[1].close()
            await bridge[0].read()
            car = await connect("car", clean=True)
            for number in range(20):
                await publish(*car, Message("t", bytes([number]) * 1_000, 1))
            assert broker.dropped == 13
            reader, _ = await connect("bridge", clean=False)
            for number in range(7):
                packet = await reader.readexactly(3 + 2 + 1 + 2 + 1_000)
                assert packet[-1] == number

    run(scenario)


def test_a_client_that_does_not_read_loses_qos_0_and_nobody_else_does(monkeypatch):
    """Memory stays bounded; the count says what was lost."""
    monkeypatch.setattr(amqtt_connection, "_SLOW_BYTES", 1_000)

    async def scenario():
        async with served() as (broker, connect):
            stuck = await connect("stuck", clean=True)
            await subscribe(*stuck, "t", 0)
            car = await connect("car", clean=True)
            for _ in range(400):
                await publish(*car, Message("t", b"x" * 100_000, 1))
            assert 0 < broker.dropped < 400

    run(scenario)


def test_retained_topics_are_bounded():
    """A new retained topic beyond the limit is counted as dropped; known ones are still updated."""

    async def scenario():
        async with served(max_retained=1) as (broker, _):
            for topic, data in (("a", b"1"), ("b", b"2"), ("a", b"3")):
                await broker.accept(Message(topic, data, 1, retain=True))
            kept = {topic: bytes(item.data) for topic, item in broker.retained_messages.items()}
            assert (kept, broker.dropped) == ({"a": b"3"}, 1)

    run(scenario)


def test_drops_are_told_under_sys():
    """A subscriber of the topic that Mosquitto uses gets the count, at once and on change."""

    async def scenario():
        async with served() as (broker, connect):
            broker.dropped = 5
            reporter = asyncio.create_task(broker.report_drops())
            reader, writer = await connect("watch", clean=True)
            await subscribe(reader, writer, "$SYS/broker/publish/messages/dropped", 0)
            told = await reader.readexactly(2)
            assert (await reader.readexactly(told[1])).endswith(b"dropped5")
            broker.dropped = 6
            told = await reader.readexactly(2)
            assert (await reader.readexactly(told[1])).endswith(b"dropped6")
            reporter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporter

    run(scenario)

"""One MQTT connection, driven packet by packet without a network."""

import asyncio

import pytest

from ingest import connection as module
from ingest import packets
from ingest.connection import Connection
from ingest.errors import ConnectionLost, ConnectionRefused, ProtocolError, SessionTakenOver
from ingest.packets import Publish


class Wire(asyncio.Transport):
    """A transport that keeps what is written and says whether it is read."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.reading = True
        self.open = True
        self.ended = False
        self.unsent = 0
        self.connection = None

    def write(self, data):
        self.written += data

    def take(self):
        taken, self.written = self.written, b""
        return taken

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def get_write_buffer_size(self):
        return self.unsent

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended = True

    def is_closing(self):
        return not self.open

    def close(self):
        if self.open:
            self.open = False
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close


def wired(level=5, *, window=10, on_message=None, **options):
    """A connection on a `Wire`, and the messages it gave with their receipts."""
    given = []
    take = on_message or (lambda m, r: given.append((m, r)))
    connection = Connection(level, window, take, **options)
    wire = Wire()
    wire.connection = connection
    connection.connection_made(wire)
    return connection, wire, given


def message(number, qos=1):
    return packets.encode_publish(4, Publish("t", b"%d" % number, qos, number if qos else 0))


def acks(*numbers):
    return b"".join(packets.encode_puback(number) for number in numbers)


async def turn():
    """Let what was scheduled run."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_pubacks_leave_in_the_order_of_receipt():
    """Receipts given back in any order send PUBACKs in the order the messages came."""

    async def play():
        connection, wire, given = wired(4)
        connection.data_received(message(1) + message(2) + message(3) + message(4))
        receipts = [receipt for _, receipt in given]
        receipts[2].ack()
        receipts[1].ack()
        await turn()
        assert wire.take() == b""
        receipts[0].ack()
        await turn()
        assert wire.take() == acks(1, 2, 3)
        receipts[3].ack()
        await turn()
        assert wire.take() == acks(4)

    asyncio.run(play())


def test_a_message_of_qos_0_holds_its_place_and_gets_no_puback():
    """QoS 0 between QoS 1: it delays the PUBACKs behind it until it is safe, and has none."""

    async def play():
        connection, wire, given = wired(4)
        connection.data_received(message(1, qos=0) + message(2))
        given[1][1].ack()
        await turn()
        assert wire.take() == b""
        given[0][1].ack()
        await turn()
        assert wire.take() == acks(2)

    asyncio.run(play())


def test_a_full_window_stops_reading_until_half_of_it_is_safe():
    """Back-pressure is the window: reading pauses when it is full and goes on when it is half empty."""

    async def play():
        connection, wire, given = wired(4, window=4)
        connection.data_received(message(1) + message(2) + message(3))
        assert wire.reading
        connection.data_received(message(4))
        assert not wire.reading
        given[0][1].ack()
        await turn()
        assert not wire.reading
        given[1][1].ack()
        await turn()
        assert wire.reading

    asyncio.run(play())


def test_long_messages_stop_reading_before_the_window_is_full():
    """Their bytes are counted, too, whatever the QoS, and reading goes on when half of them is safe."""

    async def play():
        connection, wire, given = wired(4, window_bytes=300)
        long = packets.encode_publish(4, Publish("t", b"x" * 100, 1, 7))
        connection.data_received(long + message(8, qos=0) + long)
        assert wire.reading
        connection.data_received(long)
        assert (len(given), wire.reading) == (4, False)
        given[0][1].ack()
        await turn()
        assert not wire.reading
        given[1][1].ack()
        given[3][1].ack()
        await turn()
        assert not wire.reading, "the last one is safe, and cannot be acknowledged yet"
        given[2][1].ack()
        await turn()
        assert wire.reading
        connection.data_received(packets.encode_publish(4, Publish("t", b"x" * 999, 1, 9)))
        assert not wire.reading
        given[4][1].ack()
        await turn()
        assert wire.reading, "one that is longer than all may be"

    asyncio.run(play())


def test_what_the_broker_says_of_itself_takes_no_place_in_the_window():
    """At QoS 0 it is given and gone; at QoS 1 its PUBACK waits for those before it."""

    async def play():
        given, news = [], []
        connection = Connection(4, 2, lambda m, r: given.append((m, r)), None, {"sy": news.append})
        wire = Wire()
        wire.connection = connection
        connection.connection_made(wire)
        said = [packets.encode_publish(4, Publish("sy", b"x", qos, qos * 9)) for qos in (0, 1)]
        connection.data_received(message(1) + said[0] + said[0])
        assert (len(given), news, wire.reading) == (1, [b"x", b"x"], True)
        connection.data_received(said[1])
        await turn()
        assert (len(given), len(news), wire.take()) == (1, 3, b"")
        given[0][1].ack()
        await turn()
        assert wire.take() == acks(1, 9)

    asyncio.run(play())


def test_a_held_connection_reads_no_more_but_acknowledges():
    """On the way out nothing new is taken, and what is safe is still acknowledged."""

    async def play():
        connection, wire, given = wired(4, window=2)
        connection.data_received(message(1) + message(2))
        connection.hold()
        for _, receipt in given:
            receipt.ack()
        connection.disconnect()
        assert wire.take() == acks(1, 2) + packets.encode_disconnect()
        assert wire.ended

    asyncio.run(play())


def test_after_the_goodbye_everything_is_read_and_dropped():
    """A socket closed over unread bytes is reset, and the broker may lose our last receipts."""

    async def play():
        connection, wire, given = wired(4, window=2)
        connection.data_received(message(1) + message(2))
        connection.hold()
        given[0][1].ack()
        connection.disconnect()
        assert wire.take() == acks(1) + packets.encode_disconnect()
        assert (wire.reading, wire.open) == (True, True)
        connection.data_received(message(3))
        given[1][1].ack()
        connection.disconnect()
        await turn()
        assert (len(given), wire.take()) == (2, b"")
        wire.close()
        await asyncio.wait_for(connection.closed, 5)

    asyncio.run(play())


def test_a_broker_that_does_not_close_is_left(monkeypatch):
    """It has had the goodbye, and some time."""
    monkeypatch.setattr("ingest.connection.GOODBYE_S", 0.01)

    async def play():
        connection, wire, _ = wired(4)
        connection.disconnect()
        assert wire.open
        await asyncio.wait_for(connection.closed, 5)
        assert not wire.open

    asyncio.run(play())


def test_receipts_of_an_ended_connection_are_worth_nothing():
    """After the end nothing is written: the broker sends the message again on the next connection."""

    async def play():
        connection, wire, given = wired(4)
        connection.data_received(message(1))
        connection.close(ConnectionLost("test"))
        await turn()
        given[0][1].ack()
        await turn()
        assert wire.take() == b""

    asyncio.run(play())


def test_an_ended_connection_is_empty_when_all_it_gave_has_a_receipt():
    """Only then may another one begin, or each would bring a window of messages more."""

    async def play():
        connection, _, given = wired(4)
        connection.data_received(message(1) + message(2))
        connection.close(ConnectionLost("test"))
        await turn()
        emptied = asyncio.ensure_future(connection.emptied())
        given[0][1].ack()
        await turn()
        assert not emptied.done()
        given[1][1].ack()
        await asyncio.wait_for(emptied, 5)

    asyncio.run(play())


async def shaken(connack, level=5):
    connection, wire, _ = wired(level)
    asyncio.get_running_loop().call_soon(connection.data_received, connack)
    answer = await connection.connect(
        "up", clean_start=False, session_expiry_s=3600, keep_alive_s=30
    )
    return connection, wire, answer


def test_a_refused_handshake_names_code_and_reason():
    """CONNACK with a refusal raises `ConnectionRefused` that carries the code."""
    refusal = bytes.fromhex("20080087" + "05" + "1f00026e6f")
    with pytest.raises(ConnectionRefused, match=r"0x87 \(no\)") as caught:
        asyncio.run(shaken(refusal))
    assert caught.value.code == 0x87


@pytest.mark.parametrize(
    ("codes", "refused"), [("0101", False), ("0180", True), ("0100", True), ("01", True)]
)
def test_a_subscription_needs_qos_1_for_every_filter(codes, refused):
    """Refused, QoS 0 or not answered: the promise could not be kept, so it is an error."""

    async def play():
        connection, _, _ = await shaken(bytes.fromhex("2003000000"))
        suback = bytes.fromhex("0001" + "00" + codes)
        answer = bytes((0x90, len(suback))) + suback
        asyncio.get_running_loop().call_soon(connection.data_received, answer)
        await connection.subscribe(("a/+", "b"))

    if refused:
        with pytest.raises(ConnectionRefused, match="QoS 1 is needed"):
            asyncio.run(play())
    else:
        asyncio.run(play())


@pytest.mark.parametrize(("codes", "kept"), [("0011", None), ("0087", "b")])
def test_a_subscription_that_the_broker_keeps_is_an_error(codes, kept):
    """One that was not there is as good as ended; a refusal names the filter."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("2003000000"))
        wire.take()
        asking = asyncio.create_task(connection.unsubscribe(("a", "b")))
        await turn()
        assert wire.take() == packets.encode_unsubscribe(5, 1, ("a", "b"))
        connection.data_received(bytes.fromhex("b005000100" + codes))
        await asking

    if kept is None:
        asyncio.run(play())
    else:
        with pytest.raises(ConnectionRefused, match=f"'{kept}': 0x87"):
            asyncio.run(play())


def test_answers_find_their_questions_in_any_order():
    """Packet ids tell SUBACK, UNSUBACK and PUBACK apart, and none is given twice."""

    async def play():
        connection, _, _ = await shaken(bytes.fromhex("2003000000"))
        asked = [
            asyncio.create_task(connection.ask(("a",), qos=0)),
            asyncio.create_task(connection.publish(Publish("t", b"", qos=1))),
            asyncio.create_task(connection.unsubscribe(("b",))),
        ]
        await turn()
        connection.data_received(bytes.fromhex("b00400030000" + "40020002" + "900400010000"))
        assert await asyncio.gather(*asked) == [b"\x00", 0, None]

    asyncio.run(play())


def test_a_message_of_qos_0_is_dropped_rather_than_kept_for_a_slow_broker():
    """It is sent when the broker takes, and dropped when too much is unsent or nobody is there."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("20080000" + "05" + "2700000014"))
        wire.take()
        assert connection.publish_once(Publish("t", b"x"))
        assert wire.take() == packets.encode_publish(5, Publish("t", b"x"))
        assert not connection.publish_once(Publish("t", b"x" * 20)), "over the broker's maximum"
        wire.unsent = module.UNSENT_BYTES + 1
        assert not connection.publish_once(Publish("t", b"x"))
        wire.unsent = 0
        wire.close()
        assert not connection.publish_once(Publish("t", b"x"))
        assert wire.take() == b""

    asyncio.run(play())


@pytest.mark.parametrize("level", [4, 5])
def test_a_session_is_ended_by_a_word_of_mqtt_5(level):
    """The goodbye tells a broker of MQTT 5 to forget; 3.1.1 has the plain one only."""

    async def play():
        connection, wire, _ = wired(level)
        connection.disconnect(end_session=True)
        assert wire.take() == packets.encode_disconnect(end_session=level == 5)

    asyncio.run(play())


def test_who_we_are_is_said_in_every_connect():
    """A probe needs to be let in as well as a session; a refusal names the settings."""

    async def play():
        user = packets.User("me", b"pw")
        for code, level in ((0x87, 5), (0x86, 5), (5, 4), (4, 4)):
            connection = Connection(level, 10, lambda *_: None, user)
            wire = Wire()
            wire.connection = connection
            connection.connection_made(wire)
            answer = bytes((0x20, 3, 0, code, 0) if level == 5 else (0x20, 2, 0, code))
            asyncio.get_running_loop().call_soon(connection.data_received, answer)
            with pytest.raises(ConnectionRefused, match="MQTT_USERNAME with MQTT_PASSWORD_FILE"):
                await connection.connect(
                    "up", clean_start=True, session_expiry_s=0, keep_alive_s=30
                )
            assert wire.take().endswith(b"\x00\x02me\x00\x02pw")

    asyncio.run(play())


def test_a_publish_returns_the_brokers_reason_code():
    """PUBACKs in another order reach their own publishes."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("2003000000"))
        wire.take()
        first = asyncio.create_task(connection.publish(Publish("a", b"1", qos=1)))
        second = asyncio.create_task(connection.publish(Publish("b", b"2", qos=1, expiry_s=9)))
        await turn()
        assert wire.take() == packets.encode_publish(5, Publish("a", b"1", 1, 1)) + (
            packets.encode_publish(5, Publish("b", b"2", 1, 2, expiry_s=9))
        )
        connection.data_received(bytes.fromhex("4003000297" + "40020001"))
        assert (await first, await second) == (0, 0x97)

    asyncio.run(play())


def test_no_more_is_in_flight_than_the_broker_receives():
    """The broker's receive maximum bounds the publishes without PUBACK."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("20060000" + "03" + "210002"))
        wire.take()
        tasks = [
            asyncio.create_task(connection.publish(Publish("t", b"", qos=1))) for _ in range(3)
        ]
        await turn()
        assert len(wire.take()) == 2 * len(packets.encode_publish(5, Publish("t", b"", 1, 1)))
        connection.data_received(acks(1))
        await turn()
        assert len(wire.take()) == len(packets.encode_publish(5, Publish("t", b"", 1, 1)))
        connection.data_received(acks(2, 3))
        assert await asyncio.gather(*tasks) == [0, 0, 0]

    asyncio.run(play())


def test_a_packet_over_the_brokers_maximum_is_refused_here():
    """What the broker would cut the connection for is refused with the same code instead."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("20080000" + "05" + "2700000014"))
        wire.take()
        assert await connection.publish(Publish("t", b"x" * 20, qos=1)) == packets.PACKET_TOO_LARGE
        assert wire.take() == b""

    asyncio.run(play())


def test_publishes_without_puback_fail_when_the_connection_ends():
    """Whoever waits for a PUBACK, or for room to send, learns that the connection is lost."""

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("20060000" + "03" + "210001"))
        tasks = [
            asyncio.create_task(connection.publish(Publish("t", b"", qos=1))) for _ in range(3)
        ]
        await turn()
        wire.close()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, ConnectionLost)

    asyncio.run(play())


def test_a_missing_puback_ends_the_connection(monkeypatch):
    """A broker that lives but never answers a publish is given up."""
    monkeypatch.setattr(module, "PUBACK_S", 0.01)

    async def play():
        connection, wire, _ = await shaken(bytes.fromhex("2003000000"))
        with pytest.raises(ConnectionLost, match="no PUBACK"):
            await connection.publish(Publish("t", b"", qos=1))
        assert not wire.open

    asyncio.run(play())


def test_no_answer_is_owed_while_we_do_not_listen(monkeypatch):
    """Kafka is away for long: answers wait behind what we do not read; afterwards they are owed."""
    monkeypatch.setattr(module, "PUBACK_S", 0.01)
    monkeypatch.setattr(module, "ANSWER_S", 0.01)

    async def play():
        connection, wire, given = wired(4, window=1)
        connection.data_received(message(1))
        asked = [
            asyncio.create_task(connection.publish(Publish("t", b"", qos=1))),
            asyncio.create_task(connection.ask(("a",), qos=0)),
        ]
        done, _ = await asyncio.wait(asked, timeout=0.1)
        assert not done
        assert wire.open
        given[0][1].ack()
        with pytest.raises(ConnectionLost, match="no PUBACK"):
            await asked[0]
        with pytest.raises(ConnectionLost):
            await asked[1]
        assert not wire.open

    asyncio.run(play())


def test_a_silent_broker_is_given_up_unless_we_do_not_listen():
    """Keep-alive: no byte for a whole interval ends the connection; a paused one is not judged."""

    async def play():
        connection, wire, given = await _alive(window=1)
        assert packets.PINGREQ in wire.take()
        connection.data_received(message(1))
        assert not wire.reading
        connection._silent = True
        connection._keep_alive(1)
        assert wire.open
        given[0][1].ack()
        await turn()
        connection._silent = True
        connection._keep_alive(1)
        assert "silent" in str(await asyncio.wait_for(connection.closed, 5))

    async def _alive(window):
        connection, wire, given = wired(4, window=window)
        asyncio.get_running_loop().call_soon(connection.data_received, bytes.fromhex("20020000"))
        await connection.connect("up", clean_start=True, session_expiry_s=0, keep_alive_s=30)
        return connection, wire, given

    asyncio.run(play())


@pytest.mark.parametrize(
    ("received", "kind", "words"),
    [
        ("e0028e00", SessionTakenOver, "same client id"),
        ("e0028b00", ConnectionLost, "0x8b"),
        ("0000", ProtocolError, "type 0"),
        ("2003000000" * 2, ProtocolError, "Connack was not asked for"),
    ],
)
def test_the_reason_of_the_end_is_kept(received, kind, words):
    """`closed` tells whether the broker went, broke the protocol, or gave our session away."""

    async def play():
        connection, _, _ = wired(5)
        connection.data_received(bytes.fromhex(received))
        return await asyncio.wait_for(connection.closed, 5)

    fault = asyncio.run(play())
    assert isinstance(fault, kind)
    assert words in str(fault)


def test_the_handshake_ends_with_the_connection():
    """A broker that closes instead of answering ends the wait at once."""

    async def play():
        connection, wire, _ = wired(5)
        asyncio.get_running_loop().call_soon(wire.close)
        await connection.connect("up", clean_start=True, session_expiry_s=0, keep_alive_s=30)

    with pytest.raises(ConnectionLost, match="closed the connection, before it answered CONNECT"):
        asyncio.run(play())


def test_a_fault_in_the_callback_is_not_taken_for_a_lost_connection():
    """What a message callback raises comes out of `closed`, so that the process can end by it."""

    async def play():
        connection, _, _ = wired(4)
        connection.connection_lost(ZeroDivisionError("ours"))
        await connection.closed

    with pytest.raises(ZeroDivisionError):
        asyncio.run(play())

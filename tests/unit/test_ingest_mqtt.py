"""The client that keeps a session alive, against a scripted broker on loopback."""

import asyncio
import contextlib

import pytest

from ingest import mqtt
from ingest.access import Access
from ingest.connection import Connection
from ingest.errors import ConnectionLost, SessionTakenOver
from ingest.mqtt import BACKOFF_FIRST_S, BACKOFF_LAST_S, Client, backoff_s
from ingest.topology import ORDERED, SHARED, Topology
from twin.kit.mqtt_address import Broker
from twin.wire.topics import UP_FILTERS

CONNACK_4, CONNACK_4_PRESENT = bytes.fromhex("20020000"), bytes.fromhex("20020100")
CONNACK_5, CONNACK_5_PRESENT = bytes.fromhex("2003000000"), bytes.fromhex("2003010000")
REFUSED_VERSION_4 = bytes.fromhex("20020001")
TAKEN_OVER = bytes.fromhex("e0018e")


class Script:
    """A broker whose answers to CONNECT the test gives; it grants every subscription.

    `echoes`: it gives each message of QoS 1 back. `refused`: part of a topic whose subscription it
    refuses. `log` holds what came: ("connect", level, client id, clean), ("subscribe", number of
    filters), ("unsubscribe", number of filters).
    """

    def __init__(self, *connacks):
        self.connacks = list(connacks)
        self.silent = False
        self.echoes = False
        self.refused = b""
        self.unanswered = 0
        self.log = []
        self.writers = []

    async def serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            level = await self._connect(reader, writer)
            while level is not None:
                kind, body = await read_packet(reader)
                if kind == 8:
                    filters = count_filters(body, 3 if level == 5 else 2)
                    self.log.append(("subscribe", filters))
                    granted = b"\x87" if self.refused and self.refused in body else b"\x01"
                    suback = body[:2] + (b"\x00" if level == 5 else b"") + granted * filters
                    writer.write(bytes((0x90, len(suback))) + suback)
                elif kind == 10:
                    filters = count_filters(body, 3 if level == 5 else 2, options=0)
                    self.log.append(("unsubscribe", filters))
                    unsuback = body[:2] + (bytes(1 + filters) if level == 5 else b"")
                    writer.write(bytes((0xB0, len(unsuback))) + unsuback)
                elif kind == 3 and self.silent:
                    self.unanswered += 1
                elif kind == 3:
                    size = int.from_bytes(body[:2], "big")
                    writer.write(b"\x40\x02" + body[2 + size : 4 + size])
                    if self.echoes:
                        writer.write(bytes((0x32, len(body))) + body)
        writer.close()

    async def _connect(self, reader, writer):
        _, body = await read_packet(reader)
        level, clean = body[6], body[7] & 2 == 2
        at = 10 + (1 + body[10] if level == 5 else 0)
        client_id = body[at + 2 :].decode()
        self.log.append(("connect", level, client_id, clean))
        answer = self.connacks.pop(0) if self.connacks else None
        if answer is None:
            return None
        writer.write(answer)
        return level


async def read_packet(reader):
    first = (await reader.readexactly(1))[0]
    size = (await reader.readexactly(1))[0]
    if size > 127:
        size = size - 128 + 128 * (await reader.readexactly(1))[0]
    return first >> 4, await reader.readexactly(size)


def count_filters(body, at, options=1):
    found = 0
    while at < len(body):
        at += 2 + options + int.from_bytes(body[at : at + 2], "big")
        found += 1
    return found


def playing(play, script, monkeypatch, **options):
    """Run `play(client, script)` with a client of the scripted broker; back-off without waiting."""
    monkeypatch.setattr(mqtt, "backoff_s", lambda attempt, chance: 0.001)

    async def run():
        server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
        async with server:
            broker = Broker(*server.sockets[0].getsockname()[:2])
            async with asyncio.timeout(10), Client(broker, "up", **options) as client:
                await play(client)
            for writer in script.writers:
                writer.close()

    asyncio.run(run())


async def until(condition):
    """Return when it holds; the test's time-out is the deadline."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


FILTERS = {"topology": Topology(), "on_message": lambda message, receipt: None}
ALL = len(UP_FILTERS)


def test_a_broker_of_mqtt_5_is_found_out_and_spoken_to_in_it(monkeypatch):
    """A bare probe, then the persistent session in MQTT 5, then all filters."""
    script = Script(CONNACK_5, CONNACK_5)

    async def play(client):
        await client.connected()
        assert client.fault == ""

    playing(play, script, monkeypatch, **FILTERS)
    assert script.log == [
        ("connect", 5, "up-probe", True),
        ("connect", 5, "up", False),
        ("subscribe", ALL),
    ]


@pytest.mark.parametrize("probe_answer", [REFUSED_VERSION_4, None, bytes.fromhex("2003008400")])
def test_a_broker_of_3_1_1_is_spoken_to_in_3_1_1(monkeypatch, probe_answer):
    """Whether it refuses version 5 or just closes, the session is made in 3.1.1."""
    script = Script(probe_answer, CONNACK_4)

    async def play(client):
        await client.connected()

    playing(play, script, monkeypatch, **FILTERS)
    assert script.log[1:] == [("connect", 4, "up", False), ("subscribe", ALL)]


def test_a_level_that_silence_told_is_asked_for_again(monkeypatch):
    """A lost probe costs MQTT 5 until the next connection only; a refusal is kept."""
    script = Script(None, CONNACK_4, CONNACK_5, CONNACK_5_PRESENT, CONNACK_5_PRESENT)
    refused = Script(REFUSED_VERSION_4, CONNACK_4, CONNACK_4_PRESENT, CONNACK_4_PRESENT)
    again = []

    for found, levels in ((script, [5, 4, 5, 5, 5]), (refused, [5, 4, 4, 4])):

        async def reconnecting(client, found=found):
            for _ in range(2):
                await client.connected()
                again.clear()
                found.writers[-1].close()
                await until(lambda: again and not client.fault)

        told = {**FILTERS, "on_reconnect": lambda: again.append(1)}
        playing(reconnecting, found, monkeypatch, **told)
        assert [entry[1] for entry in found.log if entry[0] == "connect"] == levels


def test_without_filters_nothing_is_kept_at_the_broker(monkeypatch):
    """A client that only publishes starts clean and subscribes to nothing."""
    script = Script(CONNACK_5, CONNACK_5)

    async def play(client):
        await client.connected()

    playing(play, script, monkeypatch)
    assert script.log[1:] == [("connect", 5, "up", True)]


@pytest.mark.parametrize(
    ("second", "subscribed_again"), [(CONNACK_5_PRESENT, False), (CONNACK_5, True)]
)
def test_after_a_lost_connection_the_session_goes_on(monkeypatch, second, subscribed_again):
    """It connects again, without probing, and subscribes again only if the broker forgot."""
    script = Script(CONNACK_5, CONNACK_5, second)
    again = []

    async def play(client):
        await client.connected()
        script.writers[-1].close()
        await until(lambda: again and not client.fault)

    playing(play, script, monkeypatch, on_reconnect=lambda: again.append(1), **FILTERS)
    assert script.log[3:] == [
        ("connect", 5, "up", False),
        *([("subscribe", ALL)] * subscribed_again),
    ]


def test_a_failed_handshake_is_tried_again_from_the_probe(monkeypatch):
    """A broker that was replaced by one of another version is found out again."""
    script = Script(CONNACK_5, None, REFUSED_VERSION_4, CONNACK_4)

    async def play(client):
        await client.connected()

    playing(play, script, monkeypatch, **FILTERS)
    assert [entry[1] for entry in script.log if entry[0] == "connect"] == [5, 5, 5, 4]


def test_why_it_is_not_connected_can_be_read(monkeypatch):
    """Readiness gets a sentence while the broker refuses."""
    refusal = bytes.fromhex("2003008700")
    script = Script(*[CONNACK_5, refusal] * 3, CONNACK_5, CONNACK_5)
    seen = set()

    async def play(client):
        assert client.fault == "not connected yet"
        while client.fault:
            seen.add(client.fault)
            await asyncio.sleep(0)

    playing(play, script, monkeypatch, **FILTERS)
    assert any("0x87" in fault for fault in seen)


def test_a_session_given_to_another_client_ends_the_client(monkeypatch):
    """Two bridges on one session would throw each other out for ever: the elder gives up."""
    script = Script(CONNACK_5, CONNACK_5)

    async def play(client):
        await client.connected()
        script.writers[-1].write(TAKEN_OVER)
        with pytest.raises(SessionTakenOver):
            await asyncio.shield(client.ended)

    playing(play, script, monkeypatch, **FILTERS)


def test_what_a_callback_raises_ends_the_client(monkeypatch):
    """A fault of the process is not taken for a lost connection, and not retried for ever."""
    script = Script(CONNACK_4, CONNACK_4)

    def broken(message, receipt):
        raise ZeroDivisionError("ours")

    async def play(client):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        await client.connected()
        script.writers[-1].write(bytes.fromhex("3003000161"))
        with pytest.raises(ZeroDivisionError):
            await asyncio.shield(client.ended)

    script.connacks = [REFUSED_VERSION_4, CONNACK_4]
    playing(play, script, monkeypatch, topology=Topology(), on_message=broken)


@pytest.mark.parametrize(("connack", "asked"), [("2003000000", True), ("20050000022500", False)])
def test_a_broker_that_retains_nothing_is_not_asked_to(monkeypatch, connack, asked):
    """It would cut the connection, again and again; elsewhere `retain` is said when it is wished."""
    script, said = Script(CONNACK_5, bytes.fromhex(connack)), []
    publish = Connection.publish

    async def listening(self, message):
        said.append(message.retain)
        return await publish(self, message)

    monkeypatch.setattr(Connection, "publish", listening)

    async def play(client):
        await client.connected()
        assert await client.publish("t", b"", retain=True) == 0
        assert await client.publish("t", b"") == 0
        assert said == [asked, False]

    playing(play, script, monkeypatch)


def test_publishing_needs_a_connection_and_waits_for_the_next_one(monkeypatch):
    """Not connected and connection lost are the same named error; `connected` waits for a new one."""
    script = Script(CONNACK_5, CONNACK_5, CONNACK_5)

    async def play(client):
        with pytest.raises(ConnectionLost):
            await client.publish("t", b"")
        await client.connected()
        assert await client.publish("t", b"") == 0
        script.silent = True
        unanswered = asyncio.create_task(client.publish("t", b""))
        await until(lambda: script.unanswered)
        script.silent = False
        script.writers[-1].transport.abort()
        with pytest.raises(ConnectionLost):
            await unanswered
        await client.connected()
        assert await client.publish("t", b"") == 0

    playing(play, script, monkeypatch)


def test_a_message_without_subscription_is_the_brokers_fault(monkeypatch):
    """A client that only publishes drops the connection of a broker that sends it messages."""
    script = Script(CONNACK_5, CONNACK_5, CONNACK_5)

    async def play(client):
        await client.connected()
        script.writers[-1].write(bytes.fromhex("300400016100"))
        await until(lambda: len(script.log) == 3)

    playing(play, script, monkeypatch)
    assert script.log[-1] == ("connect", 5, "up", True)


def test_the_back_off_doubles_up_to_its_cap_and_is_spread():
    """Waits grow from the first to the last and keep within half and whole of each step."""
    wholes = [backoff_s(attempt, 1.0) for attempt in range(12)]
    assert wholes[0] == BACKOFF_FIRST_S
    assert wholes[1] == 2 * BACKOFF_FIRST_S
    assert wholes[-1] == BACKOFF_LAST_S
    assert wholes == sorted(wholes)
    assert [backoff_s(attempt, 0.0) for attempt in range(12)] == [whole / 2 for whole in wholes]
    assert backoff_s(10_000, 1.0) == BACKOFF_LAST_S


def test_what_a_session_had_before_is_left_behind(monkeypatch):
    """A session of another arrangement is unsubscribed, once the new filters are there, and once."""
    script = Script(CONNACK_5, CONNACK_5_PRESENT, CONNACK_5_PRESENT)
    again = []

    async def play(client):
        await client.connected()
        script.writers[-1].close()
        await until(lambda: again and not client.fault)

    playing(play, script, monkeypatch, on_reconnect=lambda: again.append(1), **FILTERS)
    assert script.log[2:] == [
        ("subscribe", ALL),
        # The shared ones of a worker among others, and what a probe may have left.
        ("unsubscribe", len(SHARED) + 1),
        ("connect", 5, "up", False),
    ]


NO_SHARING_5 = bytes.fromhex("2005000002" + "2a00")


@pytest.mark.parametrize(
    ("worker", "connack", "asked"),
    [
        (0, CONNACK_5, len(ORDERED) + len(SHARED)),
        (1, CONNACK_5, len(SHARED)),
        (0, NO_SHARING_5, ALL),
        (1, NO_SHARING_5, 0),
    ],
)
def test_a_broker_of_mqtt_5_says_whether_it_can_share(monkeypatch, worker, connack, asked):
    """Workers share telemetry, or worker 0 reads all and the other stands by, connected and well."""
    script = Script(CONNACK_5, connack)

    async def play(client):
        await client.connected()
        assert client.faults() == {}

    told = {**FILTERS, "topology": Topology(worker, 2)}
    playing(play, script, monkeypatch, **told)
    assert script.log[2:] == [("subscribe", asked)] * bool(asked)


def test_what_the_broker_does_not_grant_is_a_fault_of_one_that_is_connected(monkeypatch):
    """Messages go on being taken, and readiness has the sentence until a broker grants it."""
    short = bytes.fromhex("2008000005" + "110000003c")
    script = Script(CONNACK_5, short, CONNACK_5_PRESENT)
    seen = []

    async def play(client):
        await client.connected()
        seen.extend(client.faults().values())
        script.writers[-1].close()
        await until(lambda: not client.faults())

    playing(play, script, monkeypatch, **FILTERS)
    assert len(seen) == 1
    assert "keeps our session for 60 s" in seen[0]


def test_what_the_broker_says_of_itself_is_no_message(monkeypatch):
    """Topics at the side go to their own callbacks and are acknowledged; the others do not change."""
    script = Script(CONNACK_5, CONNACK_5)
    news, messages = [], []

    async def play(client):
        await client.connected()
        script.writers[-1].write(bytes.fromhex("3006000273790078" + "3005000163" + "0079"))
        await until(lambda: messages)

    told = {**FILTERS, "on_message": lambda message, _receipt: messages.append(message.topic)}
    playing(play, script, monkeypatch, side={"sy": news.append}, **told)
    assert script.log[2:] == [("subscribe", ALL), ("subscribe", 1)]
    assert (news, messages) == ([b"x"], ["c"])


def test_marks_tell_what_may_have_waited(monkeypatch):
    """Behind until a mark is back, on each connection anew; without marks nobody can say."""
    monkeypatch.setattr(mqtt, "EVERY_S", 0.001)
    script = Script(CONNACK_5, CONNACK_5, CONNACK_5_PRESENT)
    messages = []

    async def play(client):
        now = asyncio.get_running_loop().time
        await until(lambda: ("subscribe", 1) in script.log)
        assert client.behind(now())
        script.echoes = True
        # The first mark was not given back, and is sent again when it is due.
        monkeypatch.setattr("ingest.lag.AGAIN_S", 0)
        await until(lambda: not client.behind(now()))
        script.echoes = False
        script.writers[-1].close()
        await until(lambda: client.behind(now()))
        script.echoes = True
        await until(lambda: not client.behind(now()))
        assert not client.faults()

    told = {**FILTERS, "on_message": lambda message, _receipt: messages.append(message.topic)}
    playing(play, script, monkeypatch, marks=True, **told)
    assert messages == []


def test_a_broker_that_refuses_marks_is_not_ready(monkeypatch):
    """Nobody is held to a rate then, so readiness has the sentence; messages go on being taken."""
    script = Script(CONNACK_5, CONNACK_5)
    script.refused = b"cartwin/probe/"

    async def play(client):
        await client.connected()
        await until(client.faults)
        (why,) = client.faults().values()
        assert "cartwin/probe/up-mark" in why
        assert "UPLINK_VEHICLE_RATE=0" in why
        assert client.fault == ""
        assert client.behind(asyncio.get_running_loop().time())

    playing(play, script, monkeypatch, marks=True, **FILTERS)


@pytest.mark.parametrize(
    ("topology", "connack", "sharers"),
    [
        (Topology(0, 3), CONNACK_5, 3),
        (Topology(1, 3), CONNACK_5, 3),
        (Topology(0, 3), NO_SHARING_5, 1),
        (Topology(), CONNACK_5, 1),
    ],
)
def test_who_shares_telemetry_is_known(monkeypatch, topology, connack, sharers):
    """As the broker can: one that cannot share gives it all to one."""

    async def play(client):
        await client.connected()
        assert client.sharers == sharers

    told = {**FILTERS, "topology": topology}
    playing(play, Script(CONNACK_5, connack), monkeypatch, **told)


def test_files_that_let_nobody_in_are_a_fault_until_they_do(monkeypatch, tmp_path):
    """A password that is not there is named; when it is there the client connects by itself."""
    path = tmp_path / "password"
    script = Script(CONNACK_5, CONNACK_5)

    async def play(client):
        await until(lambda: "MQTT_PASSWORD_FILE" in client.fault)
        path.write_text("word")
        await client.connected()

    playing(play, script, monkeypatch, access=Access(username="u", password_file=str(path)))

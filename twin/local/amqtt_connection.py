"""One client's connection to the amqtt broker: packets in, frames out, its will at the end.

Packets are handled one after the other, so a client's order is kept and PUBACK is sent when every
subscriber's outbox has the message. Nothing waits for a slow reader: QoS 1 stays in its outbox,
QoS 0 is dropped and counted.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from amqtt.adapters import BufferReader, StreamWriterAdapter
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket
from amqtt.plugins.manager import PluginManager
from amqtt.session import Session

from twin.local import mqtt_frame as mqtt
from twin.local.mqtt_frame import BadFrame, Message

if TYPE_CHECKING:
    from twin.local.amqtt_broker import LoopbackBroker

log = logging.getLogger("twin.local.amqtt")

_MAX_PACKET_BYTES: Final = 2**20
# Unsent bytes at which a reader counts as slow, and at which one that never reads is cut off.
_SLOW_BYTES: Final = 2**20
_STUCK_BYTES: Final = 8 * 2**20
# MQTT 3.1.1, 3.1.2.10: one and a half times the keep alive without a packet ends a connection.
_KEEP_ALIVE_FACTOR: Final = 1.5


async def open_session(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plugins: PluginManager[Any]
) -> tuple[BrokerProtocolHandler, Session]:
    """Read CONNECT; raises `BadFrame` or amqtt's errors for anything else."""
    if (await reader.readexactly(1))[0] != mqtt.CONNECT:
        raise BadFrame("the first packet is no CONNECT")
    packet = mqtt.frame(mqtt.CONNECT, await _read_body(reader))
    handler, session = await BrokerProtocolHandler.init_from_connect(
        BufferReader(packet), StreamWriterAdapter(writer), plugins
    )
    return handler, session


async def _read_body(reader: asyncio.StreamReader) -> bytes:
    """The rest of a packet after its first byte; raises `BadFrame` if it is too long."""
    length = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            break
        if shift > 21:
            raise BadFrame("a packet length of more than four bytes")
    if length > _MAX_PACKET_BYTES:
        raise BadFrame(f"a packet of {length} bytes; {_MAX_PACKET_BYTES} are accepted")
    return await reader.readexactly(length)


class Connection:
    """A connected client of `broker`. `ended` is set when its session may be taken over."""

    def __init__(
        self,
        broker: "LoopbackBroker",
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.session = session
        self.ended = asyncio.Event()
        self.will = _will(session)
        self._broker = broker
        self._reader = reader
        self._writer = writer
        self._keep_alive_s = session.keep_alive * _KEEP_ALIVE_FACTOR
        self._read_at = 0.0
        # Packet ids of QoS 2 messages that were handed on and not yet released.
        self._handed_on: set[int] = set()

    async def serve(self, *, present: bool) -> None:
        """Answer CONNECT, then packets until the client leaves. `present`: its session is known."""
        loop = asyncio.get_running_loop()
        self._read_at = loop.time()
        self.session.transitions.connect()
        self._writer.write(mqtt.frame(mqtt.CONNACK, bytes((present, 0))))
        self._broker.outbox(self.session).resume()
        self.pump()
        watchdog = asyncio.create_task(self._watch()) if self._keep_alive_s else None
        try:
            while await self._handle_one():
                self._read_at = loop.time()
        except (BadFrame, AMQTTError, MQTTError, NoDataError) as error:
            log.warning("%s is cut off: %s", self.session.client_id, error)
        except (OSError, asyncio.IncompleteReadError):
            log.debug("%s is gone", self.session.client_id)
        finally:
            if watchdog is not None:
                watchdog.cancel()
            self.session.transitions.disconnect()
            self._writer.close()
            if self.will is not None:
                await self._broker.accept(self.will)

    def abort(self) -> None:
        """End the connection as if the network had."""
        self._writer.transport.abort()

    def pump(self) -> None:
        """Send what the outbox has, as far as window and reader allow."""
        transport = self._writer.transport
        if transport.get_write_buffer_size() > _SLOW_BYTES:
            return  # the next acknowledgement goes on from here
        for packet_id, message, again in self._broker.outbox(self.session).due():
            self._writer.write(mqtt.publish(message, packet_id, again=again))
            if transport.get_write_buffer_size() > _SLOW_BYTES:
                return

    def send_once(self, message: Message) -> bool:
        """Send at QoS 0; False when the client reads too slowly and the message is dropped."""
        if self._writer.transport.get_write_buffer_size() > _SLOW_BYTES:
            return False
        self._writer.write(mqtt.publish(message, 0))
        return True

    async def _handle_one(self) -> bool:
        """Handle one packet; False after DISCONNECT."""
        first = (await self._reader.readexactly(1))[0]
        body = await _read_body(self._reader)
        kind, flags = first & 0xF0, first & 0x0F
        if kind == mqtt.PUBLISH:
            await self._on_publish(flags, body)
        elif kind == mqtt.PUBACK:
            self._broker.outbox(self.session).acknowledge(_packet_id(body))
            self.pump()
        elif kind == mqtt.PUBREL & 0xF0:
            self._handed_on.discard(_packet_id(body))
            self._answer(mqtt.PUBCOMP, body[:2])
        elif kind == 0x80:
            await self._on_subscribe(first, body)
        elif kind == 0xA0:
            await self._on_unsubscribe(first, body)
        elif kind == 0xC0:
            self._answer(mqtt.PINGRESP)
        elif kind == mqtt.DISCONNECT:
            self.will = None
            return False
        else:
            raise BadFrame(f"packet type {kind >> 4} is none that a client may send now")
        return True

    async def _on_publish(self, flags: int, body: bytes) -> None:
        message, packet_id = mqtt.read_publish(flags, body)
        if message.qos == 2 and packet_id in self._handed_on:
            self._answer(mqtt.PUBREC, packet_id.to_bytes(2, "big"))
            return
        await self._broker.accept(message)
        if message.qos == 1:
            self._answer(mqtt.PUBACK, packet_id.to_bytes(2, "big"))
        elif message.qos == 2:
            self._handed_on.add(packet_id)
            self._answer(mqtt.PUBREC, packet_id.to_bytes(2, "big"))

    async def _on_subscribe(self, first: int, body: bytes) -> None:
        header = MQTTFixedHeader(first >> 4, first & 0x0F, len(body))
        packet = await SubscribePacket.from_stream(BufferReader(body), fixed_header=header)
        topics = packet.payload.topics if packet.payload else []
        if not topics:
            raise BadFrame("SUBSCRIBE without a topic filter")
        granted = [
            await self._broker.subscribe(self.session, pattern, qos) for pattern, qos in topics
        ]
        self._answer(mqtt.SUBACK, body[:2] + bytes(granted))
        for (pattern, _), qos in zip(topics, granted, strict=True):
            if qos != 0x80:
                self._broker.send_retained(self.session, pattern, qos)

    async def _on_unsubscribe(self, first: int, body: bytes) -> None:
        header = MQTTFixedHeader(first >> 4, first & 0x0F, len(body))
        packet = await UnsubscribePacket.from_stream(BufferReader(body), fixed_header=header)
        for pattern in packet.payload.topics if packet.payload else []:
            self._broker.unsubscribe(self.session, pattern)
        self._answer(mqtt.UNSUBACK, body[:2])

    def _answer(self, first: int, body: bytes = b"") -> None:
        if self._writer.transport.get_write_buffer_size() > _STUCK_BYTES:
            raise BadFrame("it does not read what it is sent")
        self._writer.write(mqtt.frame(first, body))

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        left = self._keep_alive_s
        while left > 0:
            await asyncio.sleep(left)
            left = self._read_at + self._keep_alive_s - clock()
        log.info("%s was silent for %g s", self.session.client_id, self._keep_alive_s)
        self.abort()


def _packet_id(body: bytes) -> int:
    if len(body) < 2:
        raise BadFrame("an acknowledgement without packet id")
    return int.from_bytes(body[:2], "big")


def _will(session: Session) -> Message | None:
    if not session.will_flag or not session.will_topic:
        return None
    return Message(
        session.will_topic,
        bytes(session.will_message or b""),
        session.will_qos or 0,
        bool(session.will_retain),
    )

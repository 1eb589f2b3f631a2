"""One TCP connection to a broker: handshake, keep-alive, receipts in order, publishes in flight.

Reconnecting is `ingest.mqtt`'s business. Messages go to a callback at once, in the order of the
broker; each comes with a `Receipt`. PUBACKs leave in that same order whatever the order in which
the receipts are given back, several in one write. When the window is full, in messages or in bytes,
the socket is not read, so TCP holds the broker back; a message of QoS 0 takes a place, too.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from ingest import access, packets
from ingest.errors import (
    ConnectionLost,
    ConnectionRefused,
    IngestError,
    ProtocolError,
    SessionTakenOver,
)
from ingest.packets import Connack, Level, Packet, Puback, Publish, Suback, Unsuback, User
from ingest.parser import Parser
from ingest.window import Entry, Window

ANSWER_S: Final = 10.0
"""Longest wait for CONNACK, SUBACK and UNSUBACK."""
PUBACK_S: Final = 30.0
"""Longest wait for a PUBACK; a broker that lives and does not answer is as good as gone."""
GOODBYE_S: Final = 2.0
"""How long a broker has to close a connection after our goodbye."""
MAX_IN_FLIGHT: Final = 100
"""Publishes that wait for their PUBACK at the same time."""
WINDOW_BYTES: Final = 64 << 20
"""Bytes of messages without receipt before reading pauses: a window of long ones is far more."""
UNSENT_BYTES: Final = 1 << 20
"""Bytes that the broker has not taken from us, above which QoS 0 is dropped."""


T = TypeVar("T")


class Receipt:
    """The right to acknowledge one message. Worth nothing after its connection has ended."""

    __slots__ = ("_connection", "_entry")

    def __init__(self, connection: "Connection", entry: Entry[tuple[int, int]]) -> None:
        self._connection = connection
        self._entry = entry

    def ack(self) -> None:
        """Say that the message is safe; PUBACK goes out when all before it are safe, too."""
        self._connection.acknowledge(self._entry)


OnMessage = Callable[[Publish, Receipt], None]
OnSide = Callable[[bytes], object]


class Connection(asyncio.Protocol):
    """A connection in one protocol level. `closed` ends with the reason once it is over.

    `window`: messages without receipt before reading pauses, and MQTT 5's receive maximum;
    `window_bytes`: their payloads, above which one read more may come (256 KiB). `side`: topics whose
    messages go to callbacks of their own, need no receipt, and at QoS 0 no place.
    """

    def __init__(
        self,
        level: Level,
        window: int,
        on_message: OnMessage,
        user: User | None = None,
        side: Mapping[str, OnSide] = MappingProxyType({}),
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.level: Level = level
        self._user = user
        self._side = side
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[IngestError] = self._loop.create_future()
        self._fault: IngestError | None = None
        self._limit = window
        self._limit_bytes = window_bytes
        self._bytes = 0
        self._on_message = on_message
        self._parser = Parser(level)
        self._window: Window[tuple[int, int]] = Window()
        """Packet id and bytes of each message."""
        self._flushing = False
        self._emptied: asyncio.Future[None] | None = None
        self._paused = False
        self._read_since = 0.0
        self._held = False
        self._ending = False
        self._connack: asyncio.Future[Connack] = self._loop.create_future()
        self._asked: dict[int, asyncio.Future[Suback | Unsuback]] = {}
        self._pending: dict[int, asyncio.Future[Puback]] = {}
        self._ids = itertools.cycle(range(1, 0x10000))
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._largest = packets.MAX_PACKET_BYTES
        self._ping: asyncio.TimerHandle | None = None
        self._silent = False
        self._transport: asyncio.Transport

    # --- What the client does ---------------------------------------------------------------------

    async def connect(
        self, client_id: str, *, clean_start: bool, session_expiry_s: int, keep_alive_s: int
    ) -> Connack:
        """CONNECT and its answer. Raises `ConnectionRefused`, `ConnectionLost`, `ProtocolError`."""
        self._transport.write(
            packets.encode_connect(
                self.level,
                client_id,
                clean_start=clean_start,
                keep_alive_s=keep_alive_s,
                session_expiry_s=session_expiry_s,
                receive_maximum=self._limit,
                user=self._user,
            )
        )
        try:
            answer = await self._answer(self._connack)
        except ConnectionLost as lost:
            if self.closed.done():
                raise ConnectionLost(
                    f"{lost}, before it answered CONNECT; {self._suspicion}"
                ) from lost
            raise
        if answer.code != packets.SUCCESS:
            who = (
                "; it judges MQTT_USERNAME with MQTT_PASSWORD_FILE, or the certificate in MQTT_CERT_FILE"
                if answer.code in packets.WRONG_CREDENTIALS
                else ""
            )
            raise ConnectionRefused(
                f"the broker refuses the connection with code 0x{answer.code:02x}"
                f"{f' ({answer.reason})' if answer.reason else ''}{who}",
                answer.code,
            )
        self._slots = asyncio.Semaphore(min(MAX_IN_FLIGHT, answer.receive_maximum))
        self._largest = answer.maximum_packet_size
        self._keep_alive(
            keep_alive_s if answer.server_keep_alive_s is None else answer.server_keep_alive_s
        )
        return answer

    @property
    def _suspicion(self) -> str:
        """Why a connection mostly ends so early. TLS 1.3 refuses a certificate by a reset."""
        if self._transport.get_extra_info("ssl_object") is None:
            return "it may speak TLS: mqtts:// in MQTT_URLS"
        return "it may want a certificate of ours, or another than MQTT_CERT_FILE has"

    async def probe(self, client_id: str) -> Connack:
        """A bare CONNECT without session; its answer tells whether the broker speaks this level."""
        self._transport.write(
            packets.encode_connect(
                self.level, client_id, clean_start=True, keep_alive_s=30, user=self._user
            )
        )
        return await self._answer(self._connack)

    async def ask(self, filters: tuple[str, ...], *, qos: int) -> bytes:
        """SUBSCRIBE, and for each filter the granted QoS or a refusal (from 0x80 on)."""
        packet_id = self._packet_id()
        return await self._reply(
            packet_id, packets.encode_subscribe(self.level, packet_id, filters, qos)
        )

    async def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Leave subscriptions, also those that there are none of.

        Raises `ConnectionRefused` when the broker keeps one, `ConnectionLost`.
        """
        packet_id = self._packet_id()
        codes = await self._reply(
            packet_id, packets.encode_unsubscribe(self.level, packet_id, filters)
        )
        for topic_filter, code in zip(filters, codes, strict=False):
            if code >= packets.FAILURE:
                raise ConnectionRefused(
                    f"the broker does not end the subscription to {topic_filter!r}: 0x{code:02x}",
                    code,
                )

    async def subscribe(self, filters: tuple[str, ...]) -> None:
        """Subscribe at QoS 1. Raises `ConnectionRefused` when less is granted, `ConnectionLost`."""
        granted = await self.ask(filters, qos=1)
        for topic_filter, code in itertools.zip_longest(filters, granted):
            if code != 1:
                raise ConnectionRefused(
                    f"the broker answers the subscription to {topic_filter!r} with {code};"
                    " QoS 1 is needed",
                    packets.FAILURE if code is None else code,
                )

    async def publish(self, message: Publish) -> int:
        """Publish at QoS 1 and return the reason code of the PUBACK (0 in MQTT 3.1.1).

        Raises `ConnectionLost` when it is not known whether the broker has it.
        """
        async with self._slots:
            if self._fault is not None:
                raise ConnectionLost(str(self._fault))
            message.packet_id = self._packet_id()
            packet = packets.encode_publish(self.level, message)
            if len(packet) > self._largest:
                return packets.PACKET_TOO_LARGE
            answer: asyncio.Future[Puback] = self._loop.create_future()
            self._pending[message.packet_id] = answer
            self._transport.write(packet)
            try:
                if await self._settled(answer, PUBACK_S):
                    return answer.result().code
            finally:
                answer.cancel()
            lost = ConnectionLost(f"no PUBACK after {PUBACK_S:.0f} s")
            self.close(lost)
            raise lost

    def publish_once(self, message: Publish) -> bool:
        """Publish at QoS 0; False when it is dropped, since the broker takes too slowly."""
        if (
            self._transport.is_closing()
            or self._transport.get_write_buffer_size() > UNSENT_BYTES
            or len(packet := packets.encode_publish(self.level, message)) > self._largest
        ):
            return False
        self._transport.write(packet)
        return True

    def acknowledge(self, entry: Entry[tuple[int, int]]) -> None:
        """Mark a message as safe; what may go out goes out with this round of the loop."""
        entry.done = True
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def emptied(self) -> None:
        """Return when all that was given to the callback has its receipt; once it is `closed`."""
        self._flush()
        if len(self._window):
            self._emptied = self._loop.create_future()
            await self._emptied

    def hold(self) -> None:
        """Read no more; receipts still go out."""
        self._held = True
        self._transport.pause_reading()

    def disconnect(self, *, end_session: bool = False) -> None:
        """Send what is safe and a goodbye; the broker closes, and keeps the session.

        `end_session`: an MQTT 5 broker is told to forget it.

        A socket that is closed over unread bytes is reset, and the broker then forgets receipts that it
        has not read yet: so what it still sends is read, and dropped, until it closes.
        """
        if self._ending or self._transport.is_closing():
            return
        self._flush()
        self._ending = True
        if self._ping is not None:
            self._ping.cancel()
        self._transport.write(
            packets.encode_disconnect(end_session=end_session and self.level == 5)
        )
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(GOODBYE_S, self._transport.abort)

    def close(self, fault: IngestError) -> None:
        """Cut the connection for a reason, which `closed` will give."""
        if self._fault is None:
            self._fault = fault
        self._transport.abort()

    # --- What the transport does ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once; everything that waits fails with `ConnectionLost`."""
        if self._ping is not None:
            self._ping.cancel()
        if self._fault is None:
            self._fault = ConnectionLost(
                access.why_lost(exc) if exc else "the broker closed the connection"
            )
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(ConnectionLost(str(self._fault)))
        self._pending.clear()
        if exc is None or isinstance(exc, OSError):
            self.closed.set_result(self._fault)
        else:
            # A message callback raised: that is no matter of this connection, it ends the client.
            self.closed.set_exception(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._silent = False
        if self._ending:
            return
        try:
            for packet in self._parser.feed(data):
                self._handle(packet)
        except ProtocolError as fault:
            self.close(fault)
        full = len(self._window) >= self._limit or self._bytes >= self._limit_bytes
        if full and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _handle(self, packet: Packet) -> None:
        match packet:
            case Publish():
                if not self._transport.is_closing():
                    self._give(packet)
            case Puback():
                answer = self._pending.pop(packet.packet_id, None)
                if answer is not None and not answer.done():
                    answer.set_result(packet)
            case Connack() if not self._connack.done():
                self._connack.set_result(packet)
            case Suback() | Unsuback() if packet.packet_id in self._asked:
                self._asked.pop(packet.packet_id).set_result(packet)
            case packets.Disconnect(code=packets.SESSION_TAKEN_OVER):
                self.close(SessionTakenOver("another client connected under the same client id"))
            case packets.Disconnect():
                self.close(
                    ConnectionLost(
                        f"the broker ends the connection with code 0x{packet.code:02x}"
                        f"{f' ({packet.reason})' if packet.reason else ''}"
                    )
                )
            case packets.Pingresp():
                pass
            case _:
                raise ProtocolError(f"{type(packet).__name__} was not asked for")

    def _give(self, message: Publish) -> None:
        heard = self._side.get(message.topic)
        if heard is None:
            size = len(message.payload)
            self._bytes += size
            entry = self._window.take((message.packet_id, size))
            try:
                self._on_message(message, Receipt(self, entry))
            except BaseException:
                # It ends the connection, which so acknowledges nothing any more.
                entry.done = True
                raise
            return
        if message.packet_id:
            self.acknowledge(self._window.take((message.packet_id, 0)))
        heard(message.payload)

    # --- Inside -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        safe = self._window.release()
        self._bytes -= sum(size for _, size in safe)
        if self._emptied is not None and not self._emptied.done() and not len(self._window):
            self._emptied.set_result(None)
        if self._ending or self._transport.is_closing():
            return
        acks = b"".join(packets.encode_puback(packet_id) for packet_id, _ in safe if packet_id)
        if acks:
            self._transport.write(acks)
        half = len(self._window) <= self._limit // 2 and self._bytes <= self._limit_bytes // 2
        if self._paused and not self._held and half:
            self._paused = False
            self._read_since = self._loop.time()
            self._transport.resume_reading()

    def _packet_id(self) -> int:
        return next(i for i in self._ids if i not in self._pending and i not in self._asked)

    async def _reply(self, packet_id: int, packet: bytes) -> bytes:
        """Send, and give the codes of the answer."""
        self._asked[packet_id] = self._loop.create_future()
        self._transport.write(packet)
        return (await self._answer(self._asked[packet_id])).codes

    async def _answer(self, future: asyncio.Future[T]) -> T:
        if not await self._settled(future, ANSWER_S):
            raise ConnectionLost(f"no answer from the broker after {ANSWER_S:.0f} s")
        if future.done():
            return future.result()
        raise self.closed.result()

    async def _settled(self, future: asyncio.Future[T], most_s: float) -> bool:
        """Wait for an answer, or the end; False when the broker owes it for `most_s` while we read."""
        ends = (future, self.closed)
        while True:
            since = self._loop.time()
            done, _ = await asyncio.wait(ends, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return True
            if not (self._paused or self._held) and self._read_since <= since:
                return False

    def _keep_alive(self, seconds: int) -> None:
        """Ping at half the keep-alive time; close when a whole interval brought nothing at all."""
        if seconds <= 0:
            return
        if self._silent and not (self._paused or self._held):
            self.close(ConnectionLost(f"the broker is silent for {seconds / 2:g} s"))
            return
        self._silent = True
        self._transport.write(packets.PINGREQ)
        self._ping = self._loop.call_later(seconds / 2, self._keep_alive, seconds)

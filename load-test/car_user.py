"""One Locust user = one car with its own MQTT connection (paho under gevent; MQTT 3.1.1 or 5, TLS).

The car's protocol is `twin.client.car`; here is only what carries it: connect with a will, publish,
count acknowledgements, tell Locust and the car-side log. A lost connection is made again by paho
under the same client id, as a new session of the car. Telemetry is sent only while connected and
while few messages wait for their PUBACK; what waits is sent again by paho, with its old numbers. A car
with a store (`--store`) goes on sampling without a connection, and sends again what no ack covers.

The end is graceful, however Locust ends: telemetry stops, commands are answered until `--linger-s`
passed without a new one, the store becomes empty, outstanding PUBACKs are waited for, then goodbye
and DISCONNECT.
"""

import logging
import ssl
import sys
from functools import partial
from typing import Any, Final

from gevent.event import Event
from locust import User, constant, task
from locust.contrib.mqtt import MqttClient, MqttUser
from locust.exception import StopUser
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from fleet import Fleet, now_ms
from twin.client.car import Publish
from twin.client.commands import Outcome
from twin.wire.errors import WireError

log = logging.getLogger(__name__)

MAX_WAITING: Final = 100
"""Messages of a car that wait for their PUBACK; beyond it the car skips samples."""
QUEUE: Final = 1000
"""What paho may hold for a car, outcomes included."""
DRAIN_S: Final = 10.0
"""Longest wait for outstanding PUBACKs at the end."""
SETTLE_S: Final = 30.0
"""Longest wait at the end for acks of what the store holds."""
RECONNECT_S: Final = (1, 15)
_NOT_SUBSCRIBED: Final = 0x80
"""The code that Locust counts as a failure, the only one of MQTT 3.1.1."""


class CarClient(MqttClient):
    """The MQTT client of one car. Requests are named by what is sent, not by whose it is."""

    def __init__(self, *, user: "CarUser", **options: Any) -> None:
        super().__init__(callback_api_version=CallbackAPIVersion.VERSION2, **options)
        # Acknowledged by mid: session and sequence of telemetry, None for other messages.
        self._waiting: dict[int, tuple[int, int] | None] = {}
        self.max_queued_messages_set(QUEUE)
        self.reconnect_delay_set(*RECONNECT_S)

        # Locust's own callbacks count the requests; the car hears of the same events. Paho's have
        # one form for both versions of MQTT, Locust's have not.
        def connected(client: Any, userdata: Any, _flags: Any, reason: Any, _more: Any) -> None:
            self._on_connect_cb(client, userdata, {}, reason)
            if not reason.is_failure:
                user.connected()

        def subscribed(client: Any, userdata: Any, mid: int, codes: Any, _more: Any) -> None:
            granted = [_NOT_SUBSCRIBED if code.is_failure else code.value for code in codes]
            self._on_subscribe_cb_v3x(client, userdata, mid, granted)

        def acknowledged(client: Any, userdata: Any, mid: int, reason: Any, _more: Any) -> None:
            numbers = self._waiting.pop(mid, None)
            if reason.is_failure:
                asked = self._publish_requests.pop(mid, None)
                user.refused(asked.topic if asked else "publish", str(reason))
            else:
                self._on_publish_cb(client, userdata, mid)
                user.acknowledged(numbers)

        def disconnected(client: Any, userdata: Any, _flags: Any, reason: Any, _more: Any) -> None:
            end: Any = ConnectionError(str(reason)) if reason.is_failure else 0
            self._on_disconnect_cb(client, userdata, end)
            user.disconnected()

        self.on_connect_fail = lambda _client, _userdata: user.unreachable(sys.exception())
        self.on_pre_connect = lambda _client, _userdata: user.connecting()
        self.on_connect = connected
        self.on_subscribe = subscribed
        self.on_publish = acknowledged
        self.on_disconnect = disconnected
        self.on_message = lambda _client, _userdata, message: user.heard(message)

    @property
    def waiting(self) -> int:
        """Messages that wait for their PUBACK."""
        return len(self._waiting)

    def send(self, message: Publish) -> bool:
        """Publish; False when paho did not take the message."""
        info = self.publish(message.topic, message.payload, message.qos, message.retain)
        # Without a connection paho keeps a QoS 1 message and sends it after the next CONNACK.
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            return False
        sequence = message.sequence
        self._waiting[info.mid] = None if sequence is None else (message.session, sequence)
        return True

    def _generate_event_name(self, event_type: str, qos: int, topic: str) -> str:
        leaf = topic.rpartition("/")[2]
        return leaf if event_type == "publish" else f"{event_type} {leaf}"


class CarUser(MqttUser):
    """One car. Its greenlet publishes what is due and sleeps until the next thing or an event."""

    wait_time = constant(0)
    use_loop_selectors = True
    client: CarClient
    _idle = True

    def __init__(self, environment: Any) -> None:
        self._fleet: Fleet = environment.fleet
        index = self._fleet.take()
        if index is None:
            # The runner has counted this user already; it ends in its first step.
            log.warning("no car is left for one more user: --cars says how many there are")
            User.__init__(self, environment)
            return
        self._idle = False
        self._index = index
        self._car = self._fleet.car(self._index)
        self._online = False
        self._ending = False
        self._full = False
        self._next_ms = 0
        self._heard_ms = 0
        self._begun: dict[str, int] = {}  # commands being worked on: at most a car's RUNNING
        self._event = Event()
        self.client_id = self._car.vehicle_id
        self._broker = self._fleet.broker(self._index)
        self.host, self.port = self._broker.host, self._broker.port
        self.tls_context = self._fleet.tls(self._index)
        self.protocol = self._fleet.mqtt_version
        self.client_cls = partial(CarClient, user=self)  # type: ignore[assignment]
        super().__init__(environment)

    # --- Called by the MQTT client ---------------------------------------------------------------

    def connecting(self) -> None:
        """A new session begins: its will goes with CONNECT."""
        will = self._car.connect(now_ms())
        self.client.will_set(will.topic, will.payload, will.qos, will.retain)

    def connected(self) -> None:
        """Subscribe first, then be born, so that no command meets a deaf car."""
        if self._ending and not self._car.store:
            self.client.disconnect()
            return
        now = now_ms()
        self._online = True
        self._next_ms = now + round(self._fleet.phase_s(self._index) * 1000)
        self._log("connect", session=self._car.session, t=now, store=self._fleet.store)
        self.client.subscribe([(topic, 1) for topic in self._car.subscriptions])
        self._publish(self._car.connected(now))
        self._event.set()

    def unreachable(self, why: BaseException | None) -> None:
        """No connection is made with the broker's address; paho tries again."""
        fault = f"no MQTT broker answers at {self._broker}"
        if isinstance(why, ssl.SSLError):
            reason = getattr(why, "verify_message", None) or why.reason
            fault = f"no TLS with {self._broker}: {reason}"
        self._count("connect", 0, ConnectionError(fault))

    def disconnected(self) -> None:
        """Nothing is published until the next session; a store goes on taking samples."""
        self._online = False
        self._event.set()

    def acknowledged(self, numbers: tuple[int, int] | None) -> None:
        """A PUBACK has come."""
        if numbers is not None:
            self._log("acked", session=numbers[0], sequence=numbers[1])
        if self._ending or self._full:
            self._event.set()

    def refused(self, topic: str, reason: str) -> None:
        """The broker did not take a message (MQTT 5 tells it); it stays unacknowledged."""
        self._count(topic.rpartition("/")[2], 0, PermissionError(f"refused: {reason}"))
        if self._ending or self._full:
            self._event.set()

    def heard(self, message: Any) -> None:
        """The cloud said something: answer at once."""
        now = now_ms()
        try:
            answers = self._car.receive(message.topic, message.payload, now)
        except WireError as error:
            self._count(message.topic.rpartition("/")[2], 0, error)
            return
        if message.topic.endswith("/commands"):
            self._heard_ms = now
        self._publish(answers)
        if not message.topic.endswith("/ack"):
            self._next_ms = min(self._next_ms, now + round(self._car.interval_s * 1000))
        self._event.set()

    # --- The car's own greenlet ------------------------------------------------------------------

    @task
    def drive(self) -> None:
        """Publish what is due, then wait for the next due time or an event."""
        if self._idle:
            raise StopUser
        now = now_ms()
        if not (self._online or self._samples_offline):
            self._wait(None)
            return
        if now >= self._next_ms:
            self._send_telemetry(now)
        self._wait(min(self._next_ms, self._do_due(now) or self._next_ms) - now)

    def on_stop(self) -> None:
        """End the life of the car gracefully."""
        if self._idle:
            return
        self._ending = True
        self._linger()
        self._settle()
        now = now_ms()
        if self._online:
            self._publish([self._car.goodbye(now)])
        self._drain(now + round(DRAIN_S * 1000))
        self.client.disconnect()
        self.client.loop_stop()
        self._fleet.give_back(self._index)

    def _linger(self) -> None:
        linger_ms = round(self._fleet.linger_s * 1000)
        begun = now_ms()
        deadline = begun + 3 * linger_ms
        while self._online:
            now = now_ms()
            next_at = self._do_due(now)
            until = max(begun, self._heard_ms) + linger_ms
            until = min(max(until, self._car.next_at or 0), deadline)
            if now >= until:
                return
            self._wait(min(until, next_at or until) - now)

    def _settle(self) -> None:
        """Wait until acks cover what the store holds, sending it again, also over a reconnect."""
        store = self._car.store
        deadline = now_ms() + round(SETTLE_S * 1000)
        while store and (now := now_ms()) < deadline:
            self._wait(min(deadline, self._do_due(now) or deadline) - now)

    def _drain(self, deadline: int) -> None:
        while self._online and self.client.waiting:
            now = now_ms()
            if now >= deadline:
                return
            self._wait(deadline - now)

    def _wait(self, ms: float | None) -> None:
        self._event.wait(None if ms is None else max(ms, 0) / 1000)
        self._event.clear()

    @property
    def _samples_offline(self) -> bool:
        return self._car.store is not None and self._car.numbered > 0

    def _do_due(self, now: int) -> int | None:
        """Publish what time brings; when there is more (ms), None when only an event brings it."""
        if not self._online:
            return None
        self._publish(self._car.due(now))
        outcome_at: int | None = self._car.next_at
        store = self._car.store
        if store is None:
            return outcome_at
        for message in self._car.again(now, MAX_WAITING - self.client.waiting):
            if self.client.send(message):
                self._log("again", session=message.session, sequence=message.sequence)
        self._full = self.client.waiting >= MAX_WAITING
        repeat_at = None if self._full else store.next_at
        return min((at for at in (outcome_at, repeat_at) if at is not None), default=None)

    def _send_telemetry(self, now: int) -> None:
        interval = round(self._car.interval_s * 1000)
        self._next_ms += interval
        if self._next_ms <= now:
            self._next_ms = now + interval
        if self._car.store is None and self.client.waiting >= MAX_WAITING:
            fault = f"{MAX_WAITING} messages are not acknowledged, a sample was skipped"
            self._count("telemetry", 0, RuntimeError(fault))
            return
        message = self._car.telemetry(now, self._fleet.drive.row(self._index))
        goes_out = self._online and self.client.waiting < MAX_WAITING
        # What does not go out now is held and goes later.
        if (goes_out and self.client.send(message)) or self._car.store is not None:
            self._log("sent", session=message.session, sequence=message.sequence, t=now)

    def _publish(self, messages: list[Publish]) -> None:
        for message in messages:
            self.client.send(message)
            if message.outcome is not None:
                self._note(message.outcome)

    def _note(self, outcome: Outcome) -> None:
        self._log("command", id=outcome.command_id, state=outcome.state, t=outcome.at)
        self._fleet.drive.limit(self._index, self._car.power_limit)
        if outcome.state == "received":
            self._begun[outcome.command_id] = outcome.at
        begun = self._begun.pop(outcome.command_id, outcome.at) if outcome.final else None
        if begun is not None:
            fault = None if outcome.state == "succeeded" else RuntimeError(outcome.reason)
            self._count(f"command:{outcome.name or 'unknown'}", outcome.at - begun, fault)

    def _count(self, name: str, milliseconds: int, fault: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="MQTT",
            name=name,
            response_time=milliseconds,
            response_length=0,
            exception=fault,
            context={"client_id": self._car.vehicle_id},
        )

    def _log(self, event: str, **fields: Any) -> None:
        self._fleet.log.write(event, self._car.vehicle_id, **fields)

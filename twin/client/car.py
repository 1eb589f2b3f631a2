"""A car's side of the MQTT contract (design section 4), without MQTT: bytes in, bytes out.

    connect(now)            a new session: the last will, to be given with CONNECT
    connected(now)          birth and configuration, to be published after the subscriptions
    telemetry(now, signals) one message
    receive(leaf, bytes)    what the cloud says: commands, desired, ack
    due(now), next_at       what time brings: progress and ends of commands
    again(now, room)        with a store: telemetry to send again
    goodbye(now)            before a wanted DISCONNECT

Time is an argument (ms since 1970). Whoever has the connection publishes what these return, in
order, at least once, and calls `due` and `again` only while connected. A car with a store makes
telemetry without a connection, too; it is numbered in the session that was, and need not be sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from twin.client.commands import Commands, Outcome
from twin.client.config import Config
from twin.client.store import Store
from twin.wire.codec import dump, parse_object
from twin.wire.errors import Malformed
from twin.wire.ids import check_vehicle_id
from twin.wire.topics import mqtt_topic

SUBSCRIBED: Final = ("commands", "desired")


@dataclass(frozen=True, slots=True)
class Publish:
    """One MQTT message to publish.

    `session` and `sequence` are set on telemetry, `outcome` on an outcome.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    session: int = 0
    sequence: int | None = None
    outcome: Outcome | None = None


class Car:
    """The protocol state of one car. `attributes` are fleet, model, firmware, vin.

    `interval_s` is the telemetry interval until the twin desires another; `durations_ms` replaces
    how long the commands it names take; `store` keeps telemetry until an ack covers it. Raises
    `Misaddressed` for a bad vehicle id.
    """

    def __init__(
        self,
        vehicle_id: str,
        attributes: Mapping[str, str],
        *,
        interval_s: float = 1.0,
        durations_ms: Mapping[str, int] | None = None,
        store: Store | None = None,
    ) -> None:
        self.vehicle_id = check_vehicle_id(vehicle_id)
        self.attributes = dict(attributes)
        self.session = 0
        """Of the connection, from `connect` on."""
        self.numbered = 0
        """The session that telemetry is numbered in: the last that was `connected`, 0 before any."""
        self.sequence = 0
        self.store = store
        self._reports = 0
        self._config = Config(interval_s, interval_s)
        self._commands = Commands(durations_ms or {})

    @property
    def interval_s(self) -> float:
        """Seconds between two telemetry messages, as configured now."""
        return self._config.interval_s

    @property
    def power_limit(self) -> float:
        """Share of engine power the car may use (0.1 to 1)."""
        return self._commands.power_limit

    @property
    def next_at(self) -> int | None:
        """When `due` has something to publish (ms); None while no command runs."""
        return self._commands.next_at

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topics to subscribe to with QoS 1, before anything is published."""
        leaves = SUBSCRIBED if self.store is None else (*SUBSCRIBED, "ack")
        return tuple(mqtt_topic(self.vehicle_id, leaf) for leaf in leaves)

    def connect(self, now_ms: int) -> Publish:
        """Begin a new session, whose number is the time; the last will to connect with.

        Reports and desired versions start again: the twin says once a session what it wants.
        """
        self.session = max(now_ms, self.session + 1)
        self._reports = 0
        self._config.version = 0
        return self._offline()

    def connected(self, now_ms: int) -> list[Publish]:
        """The birth, and the configuration the car runs with. Telemetry is numbered from 1 again."""
        self.numbered, self.sequence = self.session, 0
        if self.store is not None:
            self.store.rewind(now_ms)
        birth = {
            "state": "online",
            "session": self.session,
            "at": now_ms,
            "attributes": self.attributes,
        }
        return [
            self._publish("status", birth, retain=True),
            self._reported(now_ms, self._config.properties),
        ]

    def telemetry(self, now_ms: int, signals: Mapping[str, float]) -> Publish:
        """The next telemetry message, numbered from 1 in every session."""
        self.sequence += 1
        fields = {"event_time": now_ms, "session": self.numbered, "sequence": self.sequence}
        payload = dump({**fields, **signals})
        if self.store is not None:
            self.store.keep(self.numbered, self.sequence, payload, now_ms)
        return self._telemetry(self.numbered, self.sequence, payload)

    def again(self, now_ms: int, room: int) -> list[Publish]:
        """At most `room` messages that are held and to be sent again now."""
        if self.store is None:
            return []
        return [self._telemetry(*held) for held in self.store.again(now_ms, room)]

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[Publish]:
        """Answer a message of the cloud. Raises a `WireError` when it cannot be understood."""
        if topic == mqtt_topic(self.vehicle_id, "commands"):
            return self._outcomes(self._commands.take(parse_object(payload), now_ms))
        if topic == mqtt_topic(self.vehicle_id, "desired"):
            confirmed = self._config.take(parse_object(payload))
            if confirmed is None:
                return []
            return [self._reported(now_ms, confirmed, desired_version=self._config.version)]
        if self.store is not None and topic == mqtt_topic(self.vehicle_id, "ack"):
            _take_ack(self.store, parse_object(payload), now_ms)
            return []
        raise Malformed(
            f"a message on {topic[:120]!r}; {' and '.join(self.subscriptions)} are subscribed",
            reason="unknown_topic",
        )

    def due(self, now_ms: int) -> list[Publish]:
        """Outcomes whose time has come."""
        return self._outcomes(self._commands.due(now_ms))

    def goodbye(self, now_ms: int) -> Publish:
        """The farewell before a wanted disconnect."""
        return self._offline(at=now_ms)

    def _telemetry(self, session: int, sequence: int, payload: bytes) -> Publish:
        if self.store is not None:
            # Said anew each time: it tells the cloud what this car has heard of its acks.
            held_from = self.store.held_from(session) or sequence
            payload = b'{"held_from":%d,' % held_from + payload[1:]
        topic = mqtt_topic(self.vehicle_id, "telemetry")
        return Publish(topic, payload, session=session, sequence=sequence)

    def _offline(self, **more: Any) -> Publish:
        return self._publish(
            "status", {"state": "offline", "session": self.session, **more}, retain=True
        )

    def _reported(self, now_ms: int, properties: Mapping[str, Any], **more: Any) -> Publish:
        self._reports += 1
        record = {
            "event_time": now_ms,
            "session": self.session,
            "sequence": self._reports,
            **more,
            "properties": properties,
        }
        return self._publish("reported", record)

    def _outcomes(self, outcomes: list[Outcome]) -> list[Publish]:
        return [self._outcome(outcome) for outcome in outcomes]

    def _outcome(self, outcome: Outcome) -> Publish:
        record: dict[str, Any] = {
            "command_id": outcome.command_id,
            "state": outcome.state,
            "at": outcome.at,
        }
        if outcome.progress is not None:
            record["progress"] = outcome.progress
        if outcome.reason is not None:
            record["reason"] = outcome.reason
        return self._publish("outcomes", record, outcome=outcome)

    def _publish(
        self, leaf: str, record: Mapping[str, Any], *, retain: bool = False, **more: Any
    ) -> Publish:
        return Publish(mqtt_topic(self.vehicle_id, leaf), dump(record), retain=retain, **more)


def _take_ack(store: Store, message: Mapping[str, Any], now_ms: int) -> None:
    session, upto = message.get("session"), message.get("upto")
    if type(session) is not int or type(upto) is not int:
        raise Malformed(
            f"ack of session {str(session)[:40]!r} up to {str(upto)[:40]!r}; integers are accepted"
        )
    store.covered(session, upto, now_ms)

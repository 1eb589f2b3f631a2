"""Kafka clients with the settings that our promises need, in one place.

Producer: acks=all, idempotent, murmur2 partitioner (the twin's table must agree with Java and Faust),
bounded queue. Consumer: no automatic commit; whoever reads commits after its work is durable. TLS and
SASL: of the process, `twin.kit.security`; whoever makes a client of its own (benches, the checker) takes
`connection`, so none is left out.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import methodcaller
from typing import Any, Final, cast

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from twin.kit import logs, metrics
from twin.kit.security import KafkaSecurity
from twin.kit.settings import read
from twin.wire import topics
from twin.wire.errors import CartwinError

log = logs.get(__name__)

Headers = list[tuple[str, bytes]]
Read = list[tuple[str, bytes | None]] | None
"""Headers of a record as it is read."""


LAG_EVERY_S: Final = 1.0
_LOG_EVERY_S: Final = 10.0
_SAY_AFTER_S: Final = 2.0
_ANSWER_S: Final = 5.0
_last_logged: dict[str, float] = {}


class KafkaUnavailable(CartwinError):
    """No broker answered in time."""


class _Producer(Producer):
    address = ""


class _Consumer(Consumer):
    address = ""


@cache
def security() -> KafkaSecurity:
    """How this process's clients secure their connections; on wrong settings the process ends with 2."""
    return read(KafkaSecurity)


def connection(bootstrap: str) -> dict[str, Any]:
    """How any of our clients of librdkafka finds the brokers and is let in: nothing else is set."""
    return {"bootstrap.servers": bootstrap, **security().kafka_client()}


def producer(bootstrap: str, client_id: str, **overrides: Any) -> Producer:
    """A producer that keeps order per key and counts a record only when all replicas have it."""
    made = _Producer(
        {
            "client.id": client_id,
            "enable.idempotence": True,
            "acks": "all",
            # More would lose records. A leader that knows nothing of a producer yet takes any batch of
            # it: the second, too, after it has refused the first (it was not leader yet). librdkafka
            # then calls both delivered. Measured: no slower (DECISIONS 34).
            "max.in.flight": 1,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": 100_000,
            # Else a record near the brokers' own limit could be read but not set aside.
            "message.max.bytes": topics.REJECTED_MAX_BYTES,
            # Time to live in the queue: longer than a broker restart, so that the window in front
            # of the producer holds back the source instead of losing records.
            "message.timeout.ms": 300_000,
            **_common(bootstrap),
            **overrides,
        }
    )
    made.address = bootstrap
    return made


def consumer(bootstrap: str, group: str, client_id: str, **overrides: Any) -> Consumer:
    """A consumer that starts at the oldest record and commits only when told."""
    made = _Consumer(
        {
            "group.id": group,
            "client.id": client_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 20,
            **_common(bootstrap),
            **overrides,
        }
    )
    made.address = bootstrap
    return made


class Lag:
    """How far a member of a group is behind, told once a second by the thread that polls it."""

    def __init__(self, consumer: Consumer, group: str) -> None:
        self._consumer = consumer
        self._group = group
        self._due = 0.0

    def tell(self, now: float) -> None:
        """`now`: seconds of a clock that never goes back. Asks nobody but the client's memory."""
        if now < self._due:
            return
        self._due = now + LAG_EVERY_S
        behind = {}
        for at in self._consumer.position(self._consumer.assignment()):
            known = self._consumer.get_watermark_offsets(
                TopicPartition(at.topic, at.partition), cached=True
            )
            # Without a place or an end nothing was read yet, so nothing is known.
            if at.offset >= 0 and known is not None and known[1] >= 0:
                behind[at.topic, at.partition] = max(0, known[1] - at.offset)
        metrics.CONSUMER_BEHIND.tell(self._group, behind)


def admin(bootstrap: str) -> AdminClient:
    """A client that asks about topics, and makes them; it says nothing but in its answers."""
    settings = _common(bootstrap)
    del settings["error_cb"]
    return AdminClient(settings)


def wait_for_topics(client: Producer | Consumer, names: list[str], timeout_s: float = 60) -> None:
    """Return when a broker answers and knows all topics; raises `KafkaUnavailable` naming what not.

    `client`: made here, and not subscribed to anything yet. Whoever waits for long is told for what.
    """
    start = time.monotonic()
    answer_s, said = min(_SAY_AFTER_S, timeout_s), False
    while True:
        try:
            known = client.list_topics(timeout=answer_s).topics
            missing = [name for name in names if name not in known]
            if not missing:
                return
            problem = f"topics {', '.join(missing)} do not exist (cartwin up creates them)"
        except KafkaException as error:
            at = getattr(client, "address", "")
            problem = f"no broker answers at {at}: {error.args[0].str()}"
            # Why, as the client has learnt: a refusal, a name that is none, a wrong password.
            client.poll(0)
        waited = time.monotonic() - start
        if waited > timeout_s:
            raise KafkaUnavailable(f"Kafka is not usable after {timeout_s:.0f} s: {problem}")
        if not said and _SAY_AFTER_S <= waited < timeout_s:
            said, answer_s = True, min(_ANSWER_S, timeout_s)
            until = datetime.now(UTC) + timedelta(seconds=timeout_s - waited)
            log.warning("waiting for Kafka", why=problem, until=until.isoformat(timespec="seconds"))
        time.sleep(0.2)


def log_error(error: Any) -> None:
    """The client repeats itself many times a second while a broker is away: once in a while is enough."""
    now = time.monotonic()
    if error.fatal() or now - _last_logged.get(error.name(), -_LOG_EVERY_S) >= _LOG_EVERY_S:
        _last_logged[error.name()] = now
        log.warning("kafka client", error=error.str(), code=error.name(), fatal=error.fatal())


_QUIET: Final[dict[str, Any]] = {
    "error_cb": log_error,
    # librdkafka's own lines on stderr say the same without our format.
    "log_level": 0,
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 2_000,
}


def _common(bootstrap: str) -> dict[str, Any]:
    return {**connection(bootstrap), **_QUIET}


# For a name that is no UTF-8 the client leaves its UnicodeDecodeError behind and returns all the same: a
# list with a hole in it, on which the interpreter dies. A call from C notices and raises SystemError; a
# call in Python does not once it is hot. And asked again the client gives that list without an error.
_ASK: Final = methodcaller("headers")
_NO_TEXT: Final = (SystemError, UnicodeDecodeError)


def headers_of(message: Message) -> Read:
    """A record's headers; None when there are none, or when a name is no UTF-8. Ask once, and only here.

    Kafka takes any bytes for a name, and one such record must not stop whoever reads.
    """
    try:
        return cast(Read, _ASK(message))
    except _NO_TEXT:
        return None


def headers_of_all(messages: Iterable[Message]) -> list[Read]:
    """`headers_of` each, without a call in Python for each."""
    asked = map(Message.headers, messages)
    found: list[Any] = []
    while True:
        try:
            # On an error it keeps what came before, and the next round goes on behind it.
            found.extend(asked)
        except _NO_TEXT:
            found.append(None)
        else:
            return found

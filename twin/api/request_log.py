"""Requests on their way into Kafka: one producer, one thread that serves its callbacks.

`append` never waits for Kafka. A request that Kafka has not taken within the time that somebody
waits for it is dropped, so that it cannot take effect minutes after its sender was refused.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from twin.kit import kafka, logs
from twin.wire import codec, topics
from twin.wire.errors import CartwinError
from twin.wire.records import Request

log = logs.get(__name__)

_QUEUE: Final = 10_000
_METADATA_S: Final = 1.0


class LogUnavailable(CartwinError):
    """Kafka has not taken a request."""


class RequestLog:
    """Appends to topic `requests`; keyed by vehicle, so the owner reads them in order."""

    def __init__(self, bootstrap: str, wait_s: float) -> None:
        self._producer = kafka.producer(
            bootstrap,
            "cartwin-api",
            **{
                "linger.ms": 0,
                # "Kafka did not take it" shall arrive before "no answer", and librdkafka looks for
                # what has timed out once a second only.
                "message.timeout.ms": int(max(wait_s - 1.5, wait_s / 2) * 1000),
                "queue.buffering.max.messages": _QUEUE,
                # Readiness asks every second and logs what changes; librdkafka would say it 20
                # times a second, and reconnect as often.
                "reconnect.backoff.ms": 500,
                "error_cb": _trace,
                "log_level": 2,
            },
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="request-log", daemon=True)
        self._thread.start()

    def append(
        self, request: Request, traceparent: str | None, on_lost: Callable[[LogUnavailable], None]
    ) -> None:
        """Queue a request; `on_lost` is called in the caller's event loop if Kafka never takes it.

        Raises `LogUnavailable` when the queue is full.
        """
        loop = asyncio.get_running_loop()

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                lost = LogUnavailable(f"Kafka did not take the request: {error.str()}")
                loop.call_soon_threadsafe(on_lost, lost)

        headers: Mapping[str, str] = {
            "ingested-at": str(request["at"]),
            "content-type": codec.JSON,
            **({"traceparent": traceparent} if traceparent else {}),
        }
        try:
            self._producer.produce(
                topics.REQUESTS,
                codec.dump(request),
                request["vehicle_id"],
                on_delivery=delivered,
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
        except (BufferError, KafkaException) as error:
            raise LogUnavailable(f"Kafka does not take requests: {error}") from error

    def fault(self) -> str | None:
        """Why requests cannot be appended now, None when they can. Blocks up to a second."""
        try:
            known = self._producer.list_topics(timeout=_METADATA_S).topics
        except KafkaException as error:
            return f"no broker answers: {error.args[0].str()}"
        return None if topics.REQUESTS in known else f"topic {topics.REQUESTS} does not exist"

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is queued, then stop. Blocks up to `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self._producer.flush(timeout_s)
        self._stop.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.5)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.2)


def _trace(error: KafkaError) -> None:
    log.debug("kafka client", error=error.str(), code=error.name())

"""Where the checker's evidence comes from: car-side logs from a folder, records from Kafka.

Kafka is read from the oldest record to the end as it is at the moment of asking, again and again:
each call of `KafkaLog.read` adds what has come since. It is let in (TLS, SASL) by the same variables as
the services, which it reads by itself, as all else.
"""

import io
import os
import time
import uuid
from pathlib import Path
from typing import Any, Final

import fastavro
import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from verdict_sides import CarSide, Evidence

FRAME: Final = 5
"""Bytes before the Avro body: 0x00 and the schema id (Confluent framing)."""
TOPICS: Final = ("telemetry", "rejected", "twins", "ledger", "changes", "scores")
VARIABLES: Final = {
    "KAFKA_SSL_CA": "ssl.ca.location",
    "KAFKA_SASL_MECHANISM": "sasl.mechanism",
    "KAFKA_SASL_USERNAME": "sasl.username",
    "KAFKA_SASL_PASSWORD": "sasl.password",
}
ANSWER_S: Final = 10.0
SILENCE_S: Final = 60.0


class Unreadable(Exception):
    """An input of the checker cannot be read; the message is one sentence for its user."""


def car_logs(folder: Path) -> CarSide:
    """All car-side logs of a folder."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise Unreadable(f"{folder} has no car-side log (*.jsonl); give the fleet's --cars-log")
    cars = CarSide()
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break  # the process was killed while it wrote this line
                try:
                    cars.add(orjson.loads(line))
                except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                    raise Unreadable(
                        f"{path}:{number} is no line of a car-side log: {error}"
                    ) from error
    return cars


def avro_schema(path: Path) -> Any:
    """The parsed schema of `telemetry` from its file."""
    try:
        return fastavro.parse_schema(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, fastavro.schema.SchemaParseException) as error:
        raise Unreadable(f"{path} is no Avro schema: {error}") from error


def connection(bootstrap: str) -> dict[str, Any]:
    """How Kafka is reached, by the variables KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CA, KAFKA_SASL_*."""
    settings = {
        "bootstrap.servers": bootstrap,
        "security.protocol": (os.environ.get("KAFKA_SECURITY_PROTOCOL") or "plaintext").lower(),
    }
    for name, setting in VARIABLES.items():
        if value := os.environ.get(name):
            settings[setting] = value
    if path := os.environ.get("KAFKA_SASL_PASSWORD_FILE"):
        try:
            with open(path, encoding="utf-8", newline="\n") as lines:
                settings["sasl.password"] = lines.readline(4096).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(
                f"KAFKA_SASL_PASSWORD_FILE {path!r} cannot be read: {error}"
            ) from error
    return settings


class KafkaLog:
    """The topics of the accounts, read into an `Evidence`. Raises `Unreadable`."""

    def __init__(self, bootstrap: str, schema: Any, evidence: Evidence) -> None:
        self._schema = schema
        self._evidence = evidence
        self._unreachable = ""
        common = {**connection(bootstrap), "log_level": 0, "error_cb": self._note}
        try:
            self._admin = AdminClient(common)
        except KafkaException as error:
            raise Unreadable(f"the KAFKA_* settings are not accepted: {error.args[0]}") from error
        self._consumer = Consumer(
            {
                **common,
                "group.id": f"verdict-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            known = self._consumer.list_topics(timeout=ANSWER_S).topics
        except KafkaException as error:
            raise Unreadable(
                f"Kafka at {bootstrap} does not answer: {self._unreachable or error.args[0].str()}"
            ) from error
        missing = [topic for topic in TOPICS if topic not in known]
        if missing:
            raise Unreadable(f"Kafka at {bootstrap} has no topic {', '.join(missing)}")
        self._read: dict[tuple[str, int], int] = {
            (topic, partition): 0 for topic in TOPICS for partition in known[topic].partitions
        }
        self._consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in self._read])

    def read(self) -> None:
        """Add every record up to the ends as they are now; raises when Kafka gives none any more."""
        left = self._ends()
        silent_since = time.monotonic()
        while left:
            records = self._consumer.consume(1000, timeout=0.5)
            if records:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > SILENCE_S:
                topics = ", ".join(sorted({topic for topic, _ in left}))
                raise Unreadable(f"Kafka gives no more of {topics} for {SILENCE_S:g} s")
            for record in records:
                self._pass(record)
            left = {place: end for place, end in left.items() if self._read[place] < end}

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def _ends(self) -> dict[tuple[str, int], int]:
        """Where the partitions end that have more than was read; asked in one request."""
        latest = {TopicPartition(*place): OffsetSpec.latest() for place in self._read}
        deadline = time.monotonic() + SILENCE_S
        while True:
            asked = self._admin.list_offsets(
                latest, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S
            )
            try:
                ends = {(p.topic, p.partition): f.result().offset for p, f in asked.items()}
            except KafkaException as error:
                # A broker that starts or a leader that moves: ask again while there is time.
                if time.monotonic() > deadline:
                    raise Unreadable(f"Kafka does not say where its topics end: {error}") from error
                time.sleep(0.2)
            else:
                return {place: end for place, end in ends.items() if end > self._read[place]}

    def _pass(self, record: Message) -> None:
        place = (str(record.topic()), int(record.partition() or 0))
        offset = int(record.offset() or 0)
        error = record.error()
        if error is None:
            self._take(record, place[0], (place[1], offset))
            offset += 1
        elif error.code() != KafkaError._PARTITION_EOF:
            raise Unreadable(f"Kafka topic {place[0]} cannot be read: {error.str()}")
        self._read[place] = max(self._read[place], offset)

    def _take(self, record: Message, topic: str, place: tuple[int, int]) -> None:
        value, evidence = record.value(), self._evidence
        try:
            if topic == "telemetry":
                evidence.add_telemetry(self._telemetry(value or b""), place)
            elif topic == "rejected":
                self._take_rejected(record, value or b"")
            elif topic == "twins":
                evidence.add_twin(_text(record.key()), orjson.loads(value) if value else None)
            elif topic == "ledger":
                evidence.add_command(_text(record.key()), orjson.loads(value) if value else None)
            elif topic == "changes":
                evidence.add_change(orjson.loads(value or b""))
            else:
                evidence.add_score(orjson.loads(value or b""), place)
        except Exception as error:  # fastavro raises many unrelated types on bad bytes
            if _text(record.key()).partition("/")[0] in evidence.vehicles:
                evidence.unreadable.append(f"{topic}/{place[0]}/{place[1]} ({error!r:.80})")

    def _take_rejected(self, record: Message, value: bytes) -> None:
        headers: dict[str, Any] = dict(record.headers() or ())
        source = _text(headers.get("source"))
        vehicle = _text(record.key())
        if source.startswith("mqtt:vehicles/"):
            vehicle = source.split("/")[1]
        self._evidence.add_rejected(
            vehicle, record.timestamp()[1], self._message(vehicle, source, value)
        )

    def _message(self, vehicle: str, source: str, value: bytes) -> tuple[str, int, int] | None:
        """Which telemetry message the original bytes are; None for anything else."""
        if not (source.endswith("/telemetry") or source.startswith("kafka:telemetry/")):
            return None
        try:
            fields = self._telemetry(value) if value[:1] == b"\0" else orjson.loads(value)
            return vehicle, fields["session"], fields["sequence"]
        except Exception:  # whatever is wrong with them is why they were rejected
            return None

    def _telemetry(self, value: bytes) -> dict[str, Any]:
        if len(value) < FRAME or value[0] != 0:
            raise ValueError("no framed Avro")
        body = io.BytesIO(value[FRAME:])
        fields: dict[str, Any] = fastavro.schemaless_reader(body, self._schema, None)  # type: ignore[assignment]
        return fields

    def _note(self, error: KafkaError) -> None:
        self._unreachable = error.str()


def _text(key: bytes | str | None) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else key or ""

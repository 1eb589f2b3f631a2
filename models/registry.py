"""The registry: which stored model is champion, said on the compacted topic `models`.

The topic carries names and hashes, never bytes: the folder lies in the model store that trainer and
scorers share. `uri` is a relative reference (RFC 3986) against that store, so the store may be
mounted elsewhere and a record can never point outside it. Key `engine/champion`: the last record
counts, rolling back is writing an older version again.
"""

import time
from typing import Final, Literal, TypedDict

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from models.artefact import NAME, Artefact
from models.errors import NotDelivered
from twin.kit import kafka, logs
from twin.wire import codec, topics

log = logs.get(__name__)

CHAMPION: Final = f"{NAME}/champion"
SCORERS: Final = "cartwin-scorer"
"""Consumer group of all scorers."""


class Registration(TypedDict):
    """Topic `models`: one model in one role. `sha256` is of the manifest, which holds all others."""

    name: str
    role: Literal["champion"]
    version: str
    uri: str
    sha256: str
    feature_hash: str
    created_at: int
    horizon_s: int
    metrics: dict[str, float]


class Status(TypedDict):
    """Topic `model-status`, key scorer: what one scorer runs, or refused to run and why."""

    scorer: str
    name: str
    version: str
    state: Literal["running", "refused"]
    why: str
    at: int


def registration(artefact: Artefact) -> Registration:
    """What the registry says of a stored model."""
    manifest = artefact.manifest
    return Registration(
        name=NAME,
        role="champion",
        version=artefact.version,
        uri=artefact.version,
        sha256=artefact.sha256,
        feature_hash=manifest["features"]["hash"],
        created_at=manifest["created_at"],
        horizon_s=manifest["horizon_s"],
        metrics=manifest["metrics"]["summary"],
    )


def promote(bootstrap: str, record: Registration, timeout_s: float = 30) -> None:
    """Make it the champion; returns when Kafka has the record, else raises `NotDelivered`."""
    client = kafka.producer(
        bootstrap, "models-registry", **{"message.timeout.ms": int(timeout_s * 1000)}
    )
    kafka.wait_for_topics(client, [topics.MODELS], timeout_s)
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failed.append(error.str())

    client.produce(topics.MODELS, codec.dump(record), CHAMPION, on_delivery=delivered)
    if client.flush(timeout_s + 5) or failed:
        raise NotDelivered(
            f"{record['version']} was stored and not promoted: Kafka did not take the record"
            f" on topic {topics.MODELS} ({failed[0] if failed else 'no answer'})"
        )


class Watch:
    """The champion as the topic says, read from its beginning without a consumer group."""

    def __init__(self, bootstrap: str, client_id: str, timeout_s: float = 60) -> None:
        self._consumer: Consumer = kafka.consumer(
            bootstrap, f"{client_id}-models", client_id, **{"enable.partition.eof": True}
        )
        kafka.wait_for_topics(self._consumer, [topics.MODELS], timeout_s)
        self._consumer.assign([TopicPartition(topics.MODELS, 0, 0)])

    def poll(self, timeout_s: float) -> tuple[Registration | None, bool]:
        """The last champion among what arrives next, and whether the topic's end was reached.

        Records that are no registration are logged and skipped. The end is reported once each time
        it is reached.
        """
        champion: Registration | None = None
        ended = False
        for message in self._consumer.consume(100, timeout_s):
            error = message.error()
            if error is None:
                if message.key() == CHAMPION.encode():
                    champion = _read(message.value()) or champion
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            else:
                log.warning("reading the registry", error=error.str())
        return champion, ended

    def close(self) -> None:
        """Stop watching."""
        self._consumer.close()


def current(bootstrap: str, timeout_s: float = 10) -> Registration | None:
    """Today's champion, None when there is none. Raises `KafkaUnavailable`."""
    watch = Watch(bootstrap, "models-list", timeout_s)
    deadline = time.monotonic() + timeout_s
    champion: Registration | None = None
    ended = False
    try:
        while not ended:
            if time.monotonic() > deadline:
                raise kafka.KafkaUnavailable(
                    f"topic {topics.MODELS} could not be read to its end within {timeout_s:.0f} s"
                )
            newer, ended = watch.poll(0.2)
            champion = newer or champion
    finally:
        watch.close()
    return champion


def _read(value: bytes | None) -> Registration | None:
    try:
        record: Registration = orjson.loads(value or b"null")
        if all(isinstance(record[name], str) for name in ("version", "uri", "sha256")):
            return record
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    log.warning("a record on the registry is no registration", value=(value or b"")[:200])
    return None

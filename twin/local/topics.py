"""Kafka topics from the catalogue; topics that exist are left as they are."""

import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from twin.kit import kafka
from twin.local.errors import NotReady
from twin.wire.topics import SPECS

_REQUEST_S: Final = 15.0
# A broker that has just registered may refuse for a moment.
_TRANSIENT: Final = frozenset(
    {
        KafkaError.NOT_CONTROLLER,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)
_BROKER_DEFAULT: Final = -1
_PAUSE_S: Final = 0.1


def create(bootstrap: str, partitions: int, deadline_s: float) -> None:
    """Make every topic of the catalogue that is missing; raises `NotReady` after `deadline_s`.

    `partitions`: of the topics about a vehicle; the others have one.
    """
    client = kafka.admin(bootstrap)
    end = time.monotonic() + deadline_s
    while True:
        failed = _create_missing(client, partitions)
        if not failed:
            return
        name, error = next(iter(failed.items()))
        if error.code() not in _TRANSIENT or time.monotonic() > end:
            raise NotReady(
                f"Kafka at {bootstrap} did not create topic {name!r}: {error.str()}."
                " Create it yourself or give this client the right to."
            )
        time.sleep(_PAUSE_S)


def _create_missing(client: AdminClient, partitions: int) -> dict[str, KafkaError]:
    wanted = [
        NewTopic(
            spec.name,
            num_partitions=partitions if spec.partitioned else 1,
            replication_factor=_BROKER_DEFAULT,
            config=spec.config(),
        )
        for spec in SPECS
    ]
    failed = {}
    answers = client.create_topics(wanted, request_timeout=_REQUEST_S, operation_timeout=_REQUEST_S)
    for name, answer in answers.items():
        try:
            answer.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                failed[name] = error.args[0]
    return failed

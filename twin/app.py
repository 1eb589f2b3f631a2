"""The Faust application: one input channel over all topics about a vehicle, and the two tables.

Declarations only. All input topics and both changelogs have the same partitions, so Faust assigns a
vehicle's inputs and its table rows to the same worker. Agents get polls of raw records
(`twin.stream`): decoding belongs to `twin.inputs`, where one bad record cannot stop a partition. The
changelogs `twins` and `ledger` are public topics, written by the owner (`twin.agents`).
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faust

from twin.kit.security import KafkaSecurity
from twin.settings import WorkerSettings
from twin.stream import PollSchema, StreamApp
from twin.wire import topics

INPUTS: Final = (
    topics.TELEMETRY,
    topics.PRESENCE,
    topics.REPORTED,
    topics.OUTCOMES,
    topics.REQUESTS,
    topics.SCORES,
    topics.DELIVERIES,
)
GROUP: Final = "cartwin-twin"


@dataclass(frozen=True, slots=True)
class Declarations:
    """The app with its input channel and tables (vehicle id -> twin, vehicle/command -> entry)."""

    app: Any
    inputs: Any
    twins: Any
    ledger: Any


def declare(settings: WorkerSettings, partitions: int) -> Declarations:
    """Build the app for topics of `partitions` partitions."""
    app = StreamApp(
        GROUP,
        broker=";".join(f"kafka://{host}" for host in settings.kafka_bootstrap.split(",")),
        broker_credentials=_credentials(settings),
        store="memory://",
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        # Faust makes it, though tables in memory keep nothing there.
        datadir=Path(tempfile.gettempdir()) / f"cartwin-worker-{os.getuid()}",
        consumer_auto_offset_reset="earliest",
        # Found dead after 6 s instead of Faust's 60 s; heartbeats come from the client's own thread.
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=min(1.0, settings.session_timeout_s / 5),
        broker_max_poll_interval=300.0,
        broker_commit_interval=1.0,
        consumer_group_instance_id=settings.worker_id,
        broker_max_poll_records=settings.batch_records,
        # Of all inputs the one that nobody waits for an answer to.
        bulk_topics=frozenset({topics.TELEMETRY}),
        # A rebalance waits until the poll in hand is durable.
        stream_wait_empty=True,
        # Nothing reads a standby yet: a new owner restores from the changelog.
        table_standby_replicas=0,
    )
    inputs = app.topic(*INPUTS, schema=PollSchema())
    return Declarations(
        app, inputs, _table(app, topics.TWINS, partitions), _table(app, topics.LEDGER, partitions)
    )


def _credentials(security: KafkaSecurity) -> Any:
    """For the group's member, which is aiokafka's client; all others are made by `twin.kit.kafka`."""
    tls = security.kafka_tls()
    if security.kafka_user is None:
        return None if tls is None else faust.SSLCredentials(tls)
    mechanism, user, password = security.kafka_user
    return faust.SASLCredentials(
        username=user, password=password, mechanism=mechanism, ssl_context=tls
    )


def _table(app: Any, name: str, partitions: int) -> Any:
    changelog = app.topic(
        name,
        key_type=str,
        key_serializer="raw",
        value_type=None,
        value_serializer="json",
        partitions=partitions,
        compacting=True,
        internal=True,
        allow_empty=True,
    )
    return app.Table(name, changelog_topic=changelog, partitions=partitions, key_type=str)

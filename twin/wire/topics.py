"""Names of Kafka and MQTT topics, how long Kafka keeps them, and how MQTT topics are read.

Topics about a vehicle have equal partition counts and the key `vehicle_id`, so a twin's table, its
inputs and its outputs always lie on the same partition number.
"""

from dataclasses import dataclass
from typing import Final, Literal

from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

DAY_MS: Final = 86_400_000

TELEMETRY: Final = "telemetry"
PRESENCE: Final = "presence"
REPORTED: Final = "reported"
OUTCOMES: Final = "outcomes"
REQUESTS: Final = "requests"
SCORES: Final = "scores"
DOWNLINK: Final = "downlink"
DELIVERIES: Final = "deliveries"
CHANGES: Final = "changes"
TWINS: Final = "twins"
LEDGER: Final = "ledger"
REJECTED: Final = "rejected"
REDRIVE: Final = "redrive"
MODELS: Final = "models"
MODEL_STATUS: Final = "model-status"
BASELINES: Final = "baselines"
EDGE_MODEL: Final = "engine/edge"
"""Key on `models` of the package that cars get, at the MQTT topic EDGE_TOPIC."""
EDGE_TOPIC: Final = "models/engine"
OPERATIONS: Final = "operations"
AUDIT: Final = "audit"
TRUTH: Final = "truth"
HISTORY: Final = "history"

REJECTED_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest batch that topics `rejected` and `redrive` take, and the largest that our producers make.

A record there is an original, which may be as long as Kafka's default limit (1 MiB), and the reason
why it was not accepted on top.
"""

TWINS_MAX_BYTES: Final = 8 * 1024 * 1024
"""The largest record of `twins`: a document, and the outputs of its batch in a header."""

_COMPACTION_LAG_MS: Final = 600_000
"""A worker needs this long at most to write over what a former owner wrote too late (law 5)."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a Kafka topic is made. `partitioned`: by vehicle, else one partition.

    `max_message_bytes`: the largest batch it takes, None = as the broker is set (1 MiB by default).
    """

    name: str
    retention_ms: int
    partitioned: bool = True
    compacted: bool = False
    max_message_bytes: int | None = None

    def config(self) -> dict[str, str]:
        """Kafka topic settings; a compacted topic with a retention drops what is older, too."""
        policy = "compact,delete" if self.compacted else "delete"
        config = {"cleanup.policy": policy, "retention.ms": str(self.retention_ms)}
        if self.compacted and self.retention_ms < 0:
            config = {"cleanup.policy": "compact"}
        if self.compacted:
            config["min.compaction.lag.ms"] = str(_COMPACTION_LAG_MS)
        if self.max_message_bytes is not None:
            config["max.message.bytes"] = str(self.max_message_bytes)
        return config


SPECS: Final[tuple[TopicSpec, ...]] = (
    *(
        TopicSpec(name, 7 * DAY_MS)
        for name in (
            TELEMETRY,
            PRESENCE,
            REPORTED,
            OUTCOMES,
            REQUESTS,
            SCORES,
            DOWNLINK,
            DELIVERIES,
            CHANGES,
            TRUTH,
            # Simulated past for training: the telemetry of cars that do not exist must not make twins.
            HISTORY,
        )
    ),
    TopicSpec(TWINS, -1, compacted=True, max_message_bytes=TWINS_MAX_BYTES),
    TopicSpec(LEDGER, 30 * DAY_MS, compacted=True),
    TopicSpec(REJECTED, 30 * DAY_MS, max_message_bytes=REJECTED_MAX_BYTES),
    # Rejected messages of cars, on their way to the uplink's judgement once more.
    TopicSpec(REDRIVE, 7 * DAY_MS, max_message_bytes=REJECTED_MAX_BYTES),
    TopicSpec(MODELS, -1, partitioned=False, compacted=True),
    TopicSpec(MODEL_STATUS, -1, partitioned=False, compacted=True),
    # What each car is like when nothing is worn, of the champion that learnt it.
    TopicSpec(BASELINES, -1, compacted=True),
    TopicSpec(OPERATIONS, -1, partitioned=False, compacted=True),
    TopicSpec(AUDIT, 90 * DAY_MS, partitioned=False),
)

Kind = Literal["telemetry", "status", "reported", "outcomes"]
UP: Final[dict[str, Kind]] = {
    "telemetry": "telemetry",
    "status": "status",
    "reported": "reported",
    "outcomes": "outcomes",
}
UP_FILTERS: Final = (
    "vehicles/+/telemetry",
    "vehicles/sensor/data/+",
    "vehicles/+/status",
    "vehicles/+/reported",
    "vehicles/+/outcomes",
)
"""What the uplink subscribes to."""


def read_mqtt_topic(topic: str) -> tuple[Kind, str]:
    """Kind and vehicle id of an MQTT topic a car writes; raises `Misaddressed`."""
    parts = topic.split("/")
    if len(parts) == 3 and parts[0] == "vehicles" and parts[2] in UP:
        return UP[parts[2]], check_vehicle_id(parts[1])
    if len(parts) == 4 and parts[:3] == ["vehicles", "sensor", "data"]:
        return "telemetry", check_vehicle_id(parts[3])
    raise Misaddressed(
        f"MQTT topic {topic[:120]!r} is not accepted: vehicles/<id>/telemetry|status|reported|outcomes"
        " or vehicles/sensor/data/<id>",
        reason="unknown_topic",
    )


def mqtt_topic(vehicle_id: str, leaf: str) -> str:
    """`vehicles/{id}/{leaf}`: telemetry, status, reported, outcomes, desired, commands, ack."""
    return f"vehicles/{vehicle_id}/{leaf}"

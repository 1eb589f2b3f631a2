"""All metrics of all processes, in one list: name, what it counts, labels.

Names follow Prometheus' rules (base units, `_total`). One list means that dashboards and alert rules
can be checked against it, and that a misspelt metric is a type error.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

_LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# --- uplink: received = produced + rejected + in flight, always -----------------------------------


class Account(Collector):
    """What the uplink received and what became of it, of one moment in every scrape.

    Counters that are read one after the other differ by what moves in between. Here one thread counts,
    and a scrape copies first what is done, then what came, each in one step of the interpreter: the
    difference is what is in flight, and a message that is forgotten stays there for all to see.
    """

    def __init__(self) -> None:
        self._received: dict[str, int] = {}
        self._produced: dict[str, int] = {}
        self._rejected: dict[str, int] = {}
        REGISTRY.register(self)

    def received(self, kind: str) -> None:
        """A message came."""
        self._received[kind] = self._received.get(kind, 0) + 1

    def produced(self, kind: str) -> None:
        """Kafka has its record."""
        self._produced[kind] = self._produced.get(kind, 0) + 1

    def rejected(self, reason: str) -> None:
        """Kafka has it among the rejected ones."""
        self._rejected[reason] = self._rejected.get(reason, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Called for every scrape, by any thread."""
        produced, rejected = self._produced.copy(), self._rejected.copy()
        received = self._received.copy()
        for name, help_text, label, values in (
            ("received", "MQTT messages received", "kind", received),
            ("produced", "Messages that Kafka has", "kind", produced),
            ("rejected", "Messages that Kafka has in the topic rejected", "reason", rejected),
        ):
            family = CounterMetricFamily(f"cartwin_uplink_{name}", help_text, labels=[label])
            for value, count in values.items():
                family.add_metric([value], count)
            yield family
        yield GaugeMetricFamily(
            "cartwin_uplink_in_flight",
            "Received, and Kafka has not said that it has it",
            sum(received.values()) - sum(produced.values()) - sum(rejected.values()),
        )


class Latencies(Collector):
    """A histogram that one thread observes: a third of what the client's own takes a message."""

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self._counts = [0] * (len(_LATENCY) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(_LATENCY, seconds)] += 1
        self._sum += seconds

    def observe_all(self, seconds: Iterable[float]) -> None:
        """Count many."""
        for one in seconds:
            self.observe(one)

    def collect(self) -> Iterator[Metric]:
        """Called for every scrape, by any thread."""
        bounds = (*(str(float(bound)) for bound in _LATENCY), "+Inf")
        buckets = [*zip(bounds, accumulate(self._counts.copy()), strict=True)]
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


class Behind(Collector):
    """How far this process is behind in what it reads from Kafka: of each partition that it has now.

    Whoever polls tells it, in its own thread (`kafka.Lag`): a client may be closed under a scrape.
    """

    def __init__(self) -> None:
        self._told: dict[str, Mapping[tuple[str, int], int]] = {}
        REGISTRY.register(self)

    def tell(self, group: str, records: Mapping[tuple[str, int], int]) -> None:
        """Of all partitions (topic, number) that the reader `group` has now: records not taken."""
        self._told[group] = records

    def collect(self) -> Iterator[Metric]:
        """Called for every scrape, by any thread."""
        family = GaugeMetricFamily(
            "cartwin_consumer_lag_records",
            "Records of Kafka that a reader has before it, as of its last answer from Kafka",
            labels=["group", "topic", "partition"],
        )
        for group, records in self._told.copy().items():
            for (topic, partition), count in records.items():
                family.add_metric([group, topic, str(partition)], count)
        yield family


CONSUMER_BEHIND = Behind()
UPLINK_ACCOUNT = Account()
UPLINK_REDRIVEN = Counter(
    "cartwin_uplink_redriven_total", "Rejected messages that were driven again, judged", ["result"]
)
UPLINK_CLEARED = Counter(
    "cartwin_uplink_cleared_total",
    "Empty statuses, which tell a broker to forget the one it retains; not among the received",
)
UPLINK_OUTBOX = Gauge(
    "cartwin_uplink_outbox", "Records that wait for Kafka's word: at rest as many as are in flight"
)
UPLINK_ACKS = Counter("cartwin_uplink_acks_total", "Acks to cars that a broker was given")
UPLINK_ACK_SESSIONS = Gauge("cartwin_uplink_ack_sessions", "Sessions of cars followed for acks")
UPLINK_SUSPECT = Counter("cartwin_uplink_suspect_total", "Messages kept with impossible values")
UPLINK_RECONNECTS = Counter(
    "cartwin_uplink_reconnects_total", "Reconnects to the broker", ["shard"]
)
BROKER_DROPPED = Gauge(
    "cartwin_broker_dropped", "Messages the MQTT broker says it dropped since its start", ["shard"]
)
# Of `cartwin broker refused`, one process a broker: who it was is in what that prints.
BROKER_REFUSED = Counter(
    "cartwin_broker_refused_total",
    "Messages that the rights of their sender did not allow, by the log",
)
UPLINK_SECONDS = Latencies("cartwin_uplink_seconds", "Arrival to acknowledged by Kafka")

# --- downlink ---------------------------------------------------------------------------------------
DOWNLINK_SENT = Counter("cartwin_downlink_sent_total", "Messages the broker took", ["kind"])
DOWNLINK_MODEL = Gauge(
    "cartwin_downlink_model_bytes", "Size of the model for cars that a broker retains", ["shard"]
)
DOWNLINK_REFUSED = Counter("cartwin_downlink_refused_total", "Messages not taken", ["kind"])

# --- twin worker ------------------------------------------------------------------------------------
TWIN_APPLIED = Counter("cartwin_twin_applied_total", "Records applied", ["topic"])
TWIN_REPEATED = Counter("cartwin_twin_repeated_total", "Records seen before, skipped", ["topic"])
TWIN_LATE = Counter("cartwin_twin_late_values_total", "Signal values older than the twin's")
TWIN_DUPLICATES = Counter(
    "cartwin_twin_duplicates_total", "Telemetry records that said again what the twin had"
)
TWIN_OUTDATED = Counter(
    "cartwin_twin_outdated_total", "Records that said nothing new, by topic", ["topic"]
)
TWIN_REJECTED = Counter("cartwin_twin_rejected_total", "Records sent to rejected", ["reason"])
TWIN_CHANGES = Counter("cartwin_twin_changes_total", "Semantic changes", ["kind"])
TWIN_COUNT = Gauge("cartwin_twins", "Twins held by this worker")
TWIN_COMMANDS = Counter("cartwin_commands_total", "Command transitions", ["state"])
TWIN_DEADLINES = Gauge("cartwin_deadlines", "Deadlines waiting in this worker")
TWIN_STEP_SECONDS = Histogram(
    "cartwin_twin_step_seconds",
    "From taking a batch to: changelog, copy, shown (answered), told",
    ["step"],
    buckets=_LATENCY,
)
TWIN_WRITTEN_AGAIN = Counter(
    "cartwin_twin_written_again_total", "Records written over a former owner's late ones"
)
TWIN_STRANGE = Counter(
    "cartwin_twin_strange_total",
    "Records, entries and outboxes in the changelogs that no owner wrote, passed over",
)
TWIN_PAUSE_SECONDS = Gauge(
    "cartwin_twin_pause_seconds",
    "How long the first record waited that a partition's owner took after it was given the partition",
    ["partition"],
)
TWIN_EVENT_AGE = Histogram(
    "cartwin_twin_event_age_seconds", "Car's clock to twin durable and visible", buckets=_LATENCY
)

# --- scorer -----------------------------------------------------------------------------------------
SCORER_ROWS = Counter("cartwin_scorer_rows_total", "Telemetry rows read", ["result"])
SCORER_SCORES = Counter("cartwin_scorer_scores_total", "Scores written", ["state", "why"])
SCORER_BATCH_SECONDS = Histogram(
    "cartwin_scorer_batch_seconds", "One batch: windows, both models, produce", buckets=_LATENCY
)
SCORER_EVENT_AGE = Latencies("cartwin_scorer_event_age_seconds", "Car's clock to score computed")
SCORER_MODEL = Gauge(
    "cartwin_scorer_model_info", "1 for the loaded model of a role", ["name", "version", "role"]
)
SCORER_ALARMS = Counter(
    "cartwin_scorer_alarms_total", "Alarms opened, by the role of the model that did", ["role"]
)
SCORER_SHADOW = Counter(
    "cartwin_scorer_shadow_rows_total",
    "Rows that champion and challenger both judged, by what each made of the car",
    ["champion", "challenger"],
)
SCORER_DRIFT = Gauge(
    "cartwin_scorer_drift_psi", "Population stability index of the last window", ["feature"]
)
SCORER_DRIFTED_CARS = Gauge(
    "cartwin_scorer_drifted_vehicles",
    "Vehicles far outside a fleet that stands, in the last window",
)

# --- api --------------------------------------------------------------------------------------------
API_REQUESTS = Counter("cartwin_api_requests_total", "HTTP requests", ["method", "route", "status"])
API_SECONDS = Histogram(
    "cartwin_api_request_seconds", "HTTP request duration", ["method", "route"], buckets=_LATENCY
)
FLEET = Gauge(
    "cartwin_fleet_twins",
    "Twins in the read model by presence and by health; every API process says the same",
    ["field", "value"],
)
API_DECISIONS = Histogram(
    "cartwin_api_decision_seconds", "Request produced to owner's answer", buckets=_LATENCY
)

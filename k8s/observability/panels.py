"""What the dashboards show: a title, a unit, and queries with their legends. One list for Grafana, the checks
and the pictures.

A process is found by `job` (uplink, downlink, worker, scorer, api, kafka), which is its name everywhere.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: (PromQL, legend). `unit` as Grafana names it; `stat`: the last value, large."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    stat: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is its file name and address."""

    uid: str
    title: str
    about: str
    panels: tuple[Panel, ...]


def _percentiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    labels = f"le, {by}" if by else "le"
    named = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))",
            f"p{round(100 * q)}{named}",
        )
        for q in (0.5, 0.99)
    )


def _rate(metric: str, by: str, **where: str) -> tuple[str, str]:
    chosen = ",".join(f'{name}="{value}"' for name, value in where.items())
    chosen = f"{{{chosen}}}" if chosen else ""
    return f"sum by ({by}) (rate({metric}{chosen}[$__rate_interval]))", f"{{{{{by}}}}}"


_OURS: Final = 'job=~"uplink|downlink|worker|scorer|api"'

BOARDS: Final = (
    Board(
        "fleet",
        "Fleet",
        "The cars: how many, connected, healthy, and what is done about it.",
        (
            Panel("Twins", "short", (("sum(cartwin_twins)", "twins"),), stat=True),
            Panel(
                "Online",
                "short",
                (('max by (value) (cartwin_fleet_twins{field="presence"})', "{{value}}"),),
            ),
            Panel(
                "Health",
                "short",
                (('max by (value) (cartwin_fleet_twins{field="health"})', "{{value}}"),),
            ),
            Panel("Messages of cars", "reqps", (_rate("cartwin_uplink_received_total", "kind"),)),
            Panel("Sensor to twin", "s", _percentiles("cartwin_twin_event_age_seconds")),
            Panel("Changes of twins", "cps", (_rate("cartwin_twin_changes_total", "kind"),)),
            Panel(
                "Alarms opened",
                "short",
                (
                    (
                        "sum by (role) (increase(cartwin_scorer_alarms_total[1h]))",
                        "{{role}}, in an hour",
                    ),
                ),
            ),
        ),
    ),
    Board(
        "ingest",
        "Ingest",
        "From the brokers to Kafka: received = produced + rejected + in flight, always.",
        (
            Panel(
                "Account",
                "reqps",
                (
                    ("sum(rate(cartwin_uplink_received_total[$__rate_interval]))", "received"),
                    ("sum(rate(cartwin_uplink_produced_total[$__rate_interval]))", "produced"),
                    (
                        "sum(rate(cartwin_uplink_rejected_total[$__rate_interval])) or vector(0)",
                        "rejected",
                    ),
                ),
            ),
            Panel(
                "In flight", "short", (('cartwin_uplink_in_flight{job="uplink"}', "{{instance}}"),)
            ),
            Panel(
                "Not accounted for",
                "short",
                (
                    (
                        "sum(cartwin_uplink_received_total) - sum(cartwin_uplink_produced_total)"
                        " - (sum(cartwin_uplink_rejected_total) or vector(0)) - sum(cartwin_uplink_in_flight)",
                        "messages",
                    ),
                ),
                stat=True,
            ),
            Panel("Arrival to acknowledged by Kafka", "s", _percentiles("cartwin_uplink_seconds")),
            Panel(
                "Rejected, by reason", "reqps", (_rate("cartwin_uplink_rejected_total", "reason"),)
            ),
            Panel(
                "Dropped by brokers",
                "short",
                (("sum by (shard) (cartwin_broker_dropped)", "shard {{shard}}"),),
            ),
            Panel(
                "Acks to cars",
                "cps",
                (("sum(rate(cartwin_uplink_acks_total[$__rate_interval]))", "acks"),),
            ),
            Panel(
                "Sessions followed for acks",
                "short",
                (("sum(cartwin_uplink_ack_sessions)", "sessions"),),
            ),
            Panel(
                "Marked suspect",
                "reqps",
                (("sum(rate(cartwin_uplink_suspect_total[$__rate_interval]))", "suspect"),),
            ),
            Panel(
                "Driven again",
                "cps",
                (
                    (
                        "sum by (result) (rate(cartwin_uplink_redriven_total[$__rate_interval])) or vector(0)",
                        "{{result}}",
                    ),
                ),
            ),
        ),
    ),
    Board(
        "twin",
        "Twins",
        "The owners of the twins: what they apply, how far they are behind, where their time goes.",
        (
            Panel("Applied", "reqps", (_rate("cartwin_twin_applied_total", "topic"),)),
            Panel(
                "Behind",
                "short",
                (
                    (
                        'sum by (topic) (cartwin_consumer_lag_records{group="cartwin-twin"})',
                        "{{topic}}",
                    ),
                ),
            ),
            Panel("Steps of a batch", "s", _percentiles("cartwin_twin_step_seconds", "step")),
            Panel("Twins by worker", "short", (('cartwin_twins{job="worker"}', "{{instance}}"),)),
            Panel(
                "Seen before, skipped",
                "reqps",
                (
                    (
                        "sum(rate(cartwin_twin_repeated_total[$__rate_interval])) or vector(0)",
                        "repeated",
                    ),
                    (
                        "sum(rate(cartwin_twin_duplicates_total[$__rate_interval]))",
                        "duplicate telemetry",
                    ),
                    ("sum(rate(cartwin_twin_late_values_total[$__rate_interval]))", "late values"),
                ),
            ),
            Panel(
                "Rejected by owners",
                "reqps",
                (
                    (
                        "sum by (reason) (rate(cartwin_twin_rejected_total[$__rate_interval])) or vector(0)",
                        "{{reason}}",
                    ),
                ),
            ),
            Panel(
                "Pause of a partition that moved",
                "s",
                (("max by (instance) (cartwin_twin_pause_seconds)", "{{instance}}"),),
            ),
            Panel("Deadlines waiting", "short", (("sum(cartwin_deadlines)", "deadlines"),)),
        ),
    ),
    Board(
        "models",
        "Models",
        "The scorers: what they run, what they say, and whether cars still are what the model learnt.",
        (
            Panel(
                "Model",
                "short",
                (("max by (role, version) (cartwin_scorer_model_info)", "{{role}} {{version}}"),),
            ),
            Panel("Rows, by result", "reqps", (_rate("cartwin_scorer_rows_total", "result"),)),
            Panel("Scores told, by state", "cps", (_rate("cartwin_scorer_scores_total", "state"),)),
            Panel("Sensor to score", "s", _percentiles("cartwin_scorer_event_age_seconds")),
            Panel("Batch", "s", _percentiles("cartwin_scorer_batch_seconds")),
            Panel(
                "Behind",
                "short",
                (('sum(cartwin_consumer_lag_records{group="cartwin-scorer"})', "messages"),),
            ),
            Panel(
                "Drift (PSI, 0.25 = moved)",
                "none",
                (("max by (feature) (cartwin_scorer_drift_psi)", "{{feature}}"),),
            ),
            Panel(
                "Vehicles outside of the fleet",
                "short",
                (("sum(cartwin_scorer_drifted_vehicles)", "vehicles"),),
            ),
        ),
    ),
    Board(
        "commands",
        "Commands",
        "What is asked of cars, and what came of it; who asked waits for an owner's decision.",
        (
            Panel("Transitions", "cps", (_rate("cartwin_commands_total", "state"),)),
            Panel(
                "Succeeded, of those that ended (1 h)",
                "percentunit",
                (
                    (
                        'sum(increase(cartwin_commands_total{state="succeeded"}[1h])) / sum(increase('
                        'cartwin_commands_total{state=~"succeeded|failed|rejected|expired|undeliverable"}[1h]))',
                        "succeeded",
                    ),
                ),
                stat=True,
            ),
            Panel("Taken by brokers", "cps", (_rate("cartwin_downlink_sent_total", "kind"),)),
            Panel(
                "Refused by brokers",
                "cps",
                (
                    (
                        "sum by (kind) (rate(cartwin_downlink_refused_total[$__rate_interval])) or vector(0)",
                        "{{kind}}",
                    ),
                ),
            ),
            Panel(
                "Behind",
                "short",
                (
                    (
                        'sum(cartwin_consumer_lag_records{group="cartwin-downlink"})',
                        "messages for cars",
                    ),
                ),
            ),
            Panel("Decision of an owner", "s", _percentiles("cartwin_api_decision_seconds")),
            Panel("Requests", "reqps", (_rate("cartwin_api_requests_total", "status"),)),
            Panel("Duration of requests", "s", _percentiles("cartwin_api_request_seconds")),
        ),
    ),
    Board(
        "kafka",
        "Kafka",
        "The log under it all.",
        (
            Panel("Records in", "reqps", (_rate("kafka_topic_messagesinpersec_total", "topic"),)),
            Panel("Bytes in", "Bps", (_rate("kafka_topic_bytesinpersec_total", "topic"),)),
            Panel("Bytes out", "Bps", (_rate("kafka_topic_bytesoutpersec_total", "topic"),)),
            Panel("Size of the log", "bytes", (("sum by (topic) (kafka_log_bytes)", "{{topic}}"),)),
            Panel(
                "Produce and fetch, p99",
                "ms",
                (("max by (request) (kafka_request_milliseconds)", "{{request}}"),),
            ),
            Panel(
                "Partitions that lack something",
                "short",
                (
                    ("sum(kafka_replica_underreplicatedpartitions)", "under-replicated"),
                    ("sum(kafka_replica_underminisrpartitioncount)", "under min.insync.replicas"),
                    ("sum(kafka_controller_offlinepartitionscount)", "offline"),
                ),
            ),
            Panel(
                "Controllers",
                "short",
                (("sum(kafka_controller_activecontrollercount)", "active"),),
                stat=True,
            ),
            Panel(
                "Behind, by reader",
                "short",
                (("sum by (group) (cartwin_consumer_lag_records)", "{{group}}"),),
            ),
        ),
    ),
    Board(
        "cost",
        "Cost",
        "Cores and memory for what is carried. The demo that this replaces: 72 vCPU for 10,000 messages/s.",
        (
            Panel(
                "Cores",
                "none",
                (
                    (
                        f"sum by (job) (rate(process_cpu_seconds_total{{{_OURS}}}[$__rate_interval]))",
                        "{{job}}",
                    ),
                ),
            ),
            Panel(
                "Memory",
                "bytes",
                ((f"sum by (job) (process_resident_memory_bytes{{{_OURS}}})", "{{job}}"),),
            ),
            Panel(
                "CPU a message of a car",
                "µs",
                (
                    (
                        f"1e6 * sum by (job) (rate(process_cpu_seconds_total{{{_OURS}}}[5m]))"
                        " / on () group_left () sum(rate(cartwin_uplink_received_total[5m]))",
                        "{{job}}",
                    ),
                ),
            ),
            Panel(
                "Cores of our processes for 10,000 messages/s",
                "none",
                (
                    (
                        f"1e4 * sum(rate(process_cpu_seconds_total{{{_OURS}}}[5m]))"
                        " / sum(rate(cartwin_uplink_received_total[5m]))",
                        "cores",
                    ),
                ),
                stat=True,
            ),
            Panel(
                "Bytes a twin in the worker",
                "bytes",
                (
                    (
                        'sum(process_resident_memory_bytes{job="worker"}) / sum(cartwin_twins)',
                        "bytes",
                    ),
                ),
            ),
            Panel("Processes", "short", ((f"count by (job) (up{{{_OURS}}} == 1)", "{{job}}"),)),
        ),
    ),
)

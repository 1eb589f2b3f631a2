"""MQTT topics as the uplink reads them, and Kafka topics as they are made."""

import pytest

from twin.wire import topics
from twin.wire.errors import WireError


@pytest.mark.parametrize(
    ("topic", "kind", "vehicle_id"),
    [
        ("vehicles/car-1/telemetry", "telemetry", "car-1"),
        ("vehicles/car-1/status", "status", "car-1"),
        ("vehicles/car-1/reported", "reported", "car-1"),
        ("vehicles/car-1/outcomes", "outcomes", "car-1"),
        ("vehicles/sensor/data/car-1", "telemetry", "car-1"),
    ],
)
def test_topics_of_cars_are_read(topic, kind, vehicle_id):
    """The five topics that a car may write name kind and vehicle."""
    assert topics.read_mqtt_topic(topic) == (kind, vehicle_id)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("vehicles/car-1/desired", "unknown_topic"),
        ("vehicles/car-1", "unknown_topic"),
        ("trucks/car-1/telemetry", "unknown_topic"),
        ("vehicles/sensor/telemetry", "bad_vehicle_id"),
        ("vehicles/ä/telemetry", "bad_vehicle_id"),
        ("vehicles/sensor/data/" + "x" * 65, "bad_vehicle_id"),
    ],
)
def test_other_topics_are_refused(topic, reason):
    """Anything else is refused with a reason, `sensor` is reserved."""
    with pytest.raises(WireError) as caught:
        topics.read_mqtt_topic(topic)
    assert caught.value.reason == reason


def test_state_topics_are_compacted_and_events_are_not():
    """twins and ledger keep the last record per key, not at once; the ledger forgets after 30 days."""
    config = {spec.name: spec.config() for spec in topics.SPECS}
    assert config["twins"] == {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "600000",
        "max.message.bytes": str(topics.TWINS_MAX_BYTES),
    }
    assert config["ledger"] == {
        "cleanup.policy": "compact,delete",
        "retention.ms": "2592000000",
        "min.compaction.lag.ms": "600000",
    }
    assert config["telemetry"] == {"cleanup.policy": "delete", "retention.ms": "604800000"}


def test_only_rejected_redrive_and_twins_take_more_than_the_brokers_limit():
    """A record fits `rejected` with the reason on top, a twin fits with the outputs of its batch."""
    limits = {spec.name: spec.config().get("max.message.bytes") for spec in topics.SPECS}
    assert limits.pop("rejected") == limits.pop("redrive") == str(topics.REJECTED_MAX_BYTES)
    assert limits.pop("twins") == str(topics.TWINS_MAX_BYTES)
    assert set(limits.values()) == {None}

"""The replay's accounts against a bridge that loses, repeats or spoils things on purpose."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as mqtt
import pytest
from confluent_kafka import Producer
from paho.mqtt.enums import CallbackAPIVersion

from twin.client import replay, replay_plan
from twin.client.replay_source import Source
from twin.kit import kafka as kit_kafka
from twin.kit.kafka import KafkaUnavailable
from twin.wire import codec, topics
from twin.wire.errors import WireError
from twin.wire.telemetry import Validation

pytestmark = pytest.mark.integration

# Far longer than any row takes, so that only what really never comes is given up.
GIVES_UP_S = 4.0


@dataclass
class Faults:
    """What the bridge does wrong."""

    mode: Validation = "warn"
    drop: frozenset[int] = frozenset()
    repeat: frozenset[int] = frozenset()
    twin: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda twin: twin
    applies: bool = True


@dataclass
class Bridge:
    """Uplink and worker in forty lines: MQTT -> telemetry or rejected -> twins."""

    url: str
    bootstrap: str
    prefix: str
    faults: Faults = field(default_factory=Faults)

    def __enter__(self) -> "Bridge":
        self.producer: Producer = kit_kafka.producer(self.bootstrap, "test-bridge")
        self.reported: dict[str, dict[str, Any]] = {}
        self.delivered = threading.Lock()
        subscribed = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self._on_message
        host, port = self.url.removeprefix("mqtt://").split(":")
        self.client.connect(host, int(port))
        self.client.subscribe("vehicles/+/telemetry", 1)
        self.client.loop_start()
        self.stopping = threading.Event()
        self.poller = threading.Thread(target=self._poll)
        self.poller.start()
        assert subscribed.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.stopping.set()
        self.poller.join()
        self.producer.flush(10)
        # A client that outlives its broker would fill the log with its attempts to reach it.
        del self.producer

    def _poll(self) -> None:
        while not self.stopping.is_set():
            self.producer.poll(0.05)

    def _on_message(self, _client: Any, _user: Any, message: mqtt.MQTTMessage) -> None:
        vehicle_id = message.topic.split("/")[1]
        if not vehicle_id.startswith(self.prefix):
            return
        sequence = orjson.loads(message.payload)["sequence"]
        if sequence in self.faults.drop:
            return
        for _ in range(1 + (sequence in self.faults.repeat)):
            self._forward(vehicle_id, message.payload)

    def _forward(self, vehicle_id: str, payload: bytes) -> None:
        try:
            telemetry = codec.read_payload(
                payload, vehicle_id=vehicle_id, ingested_at=2**60, counter=0, mode=self.faults.mode
            )
        except WireError as error:
            headers = [("reason", error.reason.encode())]
            self.producer.produce(topics.REJECTED, payload, vehicle_id, headers=headers)
            return

        def on_delivery(_error: object, record: Any) -> None:
            stored = codec.decode_telemetry(record.value())
            reported = self.reported.setdefault(vehicle_id, {})
            for name, value in stored.signals.items():
                reported[name] = {"v": value, "t": stored.event_time}
            applied = {"telemetry": [record.partition(), record.offset()]}
            twin = self.faults.twin({"reported": reported, "applied": applied})
            if self.faults.applies:
                value = None if twin is None else codec.dump(twin)
                self.producer.produce(topics.TWINS, value, vehicle_id)

        value = codec.encode_telemetry(telemetry)
        self.producer.produce(topics.TELEMETRY, value, vehicle_id, on_delivery=on_delivery)


def planned(folder: Path, prefix: str, mode: Validation = "warn", rows: int = 60) -> Any:
    """Rows of three cars; a tenth of the coolant values is impossible, some cells are blank."""
    lines = ["time,car,coolant_temp,speed,tire_pressure_1_1"]
    for number in range(rows):
        coolant = 999.9 if number % 10 == 3 else 80 + number % 100 / 7
        tire = "" if number % 5 else 30 + number % 4
        lines.append(
            f"{1000 + number // 3},{prefix}{number % 3},{coolant},{number % 100 / 3},{tire}"
        )
    path = folder / f"{prefix}.csv"
    path.write_text("\n".join(lines))
    return replay_plan.make([Source(path.name, path.stem, path)], 0, mode)


def test_a_faithful_bridge_gives_equal(tmp_path, kafka, amqtt):
    """Every row once, every twin with the last values; more rows than the window holds."""
    plan = planned(tmp_path, "even-", rows=3 * replay.WINDOW)
    shown: list[replay.Progress] = []
    with Bridge(amqtt, kafka, "even-"):
        result = replay.run(plan, [amqtt], kafka, on_progress=shown.append)
    document = result.document()
    assert document.pop("seconds") > 0
    assert document == {
        "ok": True,
        "rows": 3000,
        "kafka": 3000,
        "rejected": 0,
        "twins": 3,
        "equal": True,
        "duplicates": 0,
        "suspect": 300,
        "by_signal": {"coolant_temp": {"rows": 300, "worst": 999.9}},
        "by_reason": {},
    }
    assert shown[-1] == replay.Progress(3000, 3000, 3000, 3)


def test_a_second_replay_is_counted_afresh_and_still_equal(tmp_path, kafka, amqtt):
    """Only this run's records count, though the first run's are byte for byte the same."""
    plan = planned(tmp_path, "again-")
    with Bridge(amqtt, kafka, "again-"):
        first = replay.run(plan, [amqtt], kafka)
        second = replay.run(plan, [amqtt], kafka)
    assert (first.ok, second.ok) == (True, True)
    assert (second.tally.accepted, second.tally.duplicates) == (60, 0)


def test_enforce_accounts_for_rejected_rows(tmp_path, kafka, amqtt):
    """rows = accepted + rejected by reason."""
    plan = planned(tmp_path, "strict-", mode="enforce")
    with Bridge(amqtt, kafka, "strict-", Faults(mode="enforce")):
        result = replay.run(plan, [amqtt], kafka)
    assert result.problems == []
    assert (result.tally.accepted, result.tally.by_reason) == (54, {"out_of_range": 6})


def test_one_dropped_row_is_reported_as_exactly_one(tmp_path, kafka, amqtt):
    """The replay gives up waiting and names the loss."""
    plan = planned(tmp_path, "loss-", rows=58)
    with Bridge(amqtt, kafka, "loss-", Faults(drop=frozenset({20}))):
        result = replay.run(plan, [amqtt], kafka, patience_s=GIVES_UP_S)
    assert (result.ok, result.equal) == (False, False)
    assert "1 of 58 rows are not in Kafka (58 were sent)" in result.problems


def test_a_repeated_record_is_a_duplicate_and_no_fault(tmp_path, kafka, amqtt):
    """At least once is what QoS 1 promises; twins absorb it."""
    plan = planned(tmp_path, "twice-")
    with Bridge(amqtt, kafka, "twice-", Faults(repeat=frozenset({5}))):
        result = replay.run(plan, [amqtt], kafka)
    assert (result.ok, result.tally.accepted, result.tally.duplicates) == (True, 60, 3)


@pytest.mark.parametrize("actual", ["off", "enforce"])
def test_an_uplink_in_another_mode_is_noticed(tmp_path, kafka, amqtt, actual):
    """Marks and rejections tell which mode the uplink really has."""
    plan = planned(tmp_path, f"mode-{actual}-")
    with Bridge(amqtt, kafka, f"mode-{actual}-", Faults(mode=actual)):
        result = replay.run(plan, [amqtt], kafka)
    assert not result.ok
    assert "does the uplink run with VALIDATION=warn?" in " ".join(result.problems)


def spoilt(twin: dict[str, Any]) -> dict[str, Any]:
    reported = {**twin["reported"], "fuel_level": {"v": 0.0, "t": 1}}
    return {**twin, "reported": reported}


@pytest.mark.parametrize(
    ("name", "faults", "said"),
    [
        ("wrong", Faults(twin=spoilt), "fuel_level: expected nothing, found 0.0"),
        ("gone", Faults(twin=lambda _: None), "0 of 3 cars have a twin"),
        ("idle", Faults(applies=False), "0 of 3 cars have a twin"),
    ],
)
def test_a_worker_that_is_wrong_is_noticed(tmp_path, kafka, amqtt, name, faults, said):
    """Twins that are not what the cars said last are listed by car and signal."""
    plan = planned(tmp_path, f"{name}-", rows=12)
    with Bridge(amqtt, kafka, f"{name}-", faults):
        patience_s = replay.PATIENCE_S if name == "wrong" else GIVES_UP_S
        result = replay.run(plan, [amqtt], kafka, patience_s=patience_s)
    assert (result.ok, result.equal) == (False, False)
    assert said in " ".join(result.problems)
    assert result.tally.accepted == 12


def test_without_a_bridge_the_replay_ends_and_says_so(tmp_path, kafka, amqtt):
    """Nothing arrives: it stops at the window instead of filling the broker."""
    plan = planned(tmp_path, "silent-", rows=2 * replay.WINDOW)
    result = replay.run(plan, [amqtt], kafka, patience_s=GIVES_UP_S)
    assert result.sent == replay.WINDOW
    assert "2000 of 2000 rows are not in Kafka (1000 were sent)" in result.problems


def test_pace_follows_the_recording(tmp_path, kafka, amqtt):
    """At speed 10 twenty recorded seconds take at least two; nothing is sent early."""
    plan = planned(tmp_path, "paced-", rows=63)
    assert plan.last - plan.first == 20_000
    with Bridge(amqtt, kafka, "paced-"):
        result = replay.run(plan, [amqtt], kafka, speed=10)
    assert result.ok
    assert result.seconds >= 2.0


def test_a_kafka_that_is_not_there_is_named(tmp_path, amqtt, unused_tcp_port, monkeypatch):
    """The replay says which Kafka did not answer, before a row is sent."""
    monkeypatch.setattr("twin.client.replay_check._TIMEOUT_S", 0.5)
    plan = planned(tmp_path, "nokafka-", rows=3)
    with pytest.raises(KafkaUnavailable, match="no broker answers"):
        replay.run(plan, [amqtt], f"127.0.0.1:{unused_tcp_port}")


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

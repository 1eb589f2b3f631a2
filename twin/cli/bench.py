"""`cartwin bench NAME`: figures that anybody can repeat.

Every bench prints one JSON line {"bench","ok","machine","params","results","ratio","skipped"}.
"""

import os
import platform
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import orjson
import typer
from confluent_kafka import Consumer, TopicPartition

from twin.cli import output
from twin.cli.loop import ROOT, Loop, Plan, last_json, now_ms, percentiles
from twin.cli.up import Mqtt
from twin.kit import kafka
from twin.local import LocalError
from twin.local.options import FREE_PORTS

app = typer.Typer(no_args_is_help=True, help="Measure; every figure in README comes from here.")

_PROGRAMS: Final = {
    "twin": "CPU a message and rate of the twin worker, beside Faust, Quix and Kafka Streams.",
    "ingest": "CPU a message of the bridge from MQTT to Kafka, beside those that people write.",
    "recovery": "Kill a worker under load: seconds until it is served again, nothing lost or doubled.",
    "scorer": "CPU a message and latency of the scorer, both networks on every message.",
    "memory": "Resident bytes a twin, in the worker and in Redis.",
    "api": "Latency of the API's calls while telemetry flows, and whether its answers are true.",
}
"""Benches that are programs of load-test/; `--help` is answered by the program itself."""
_TOPICS: Final = ("twins", "scores", "ledger")
_PINGS_PER_S: Final = 2


@app.callback()
def group() -> None:
    """Measure; every figure in README comes from here."""


@app.command()
def loop(
    cars: Annotated[int, typer.Option(min=10, max=1000)] = 200,
    seconds: Annotated[int, typer.Option(min=30, help="Measured time, after training.")] = 90,
    mqtt: Annotated[Mqtt, typer.Option(help="MQTT broker to start.")] = Mqtt.AUTO,
    data_dir: Annotated[Path, typer.Option(help="Emptied at start.")] = Path(".cartwin-bench/loop"),
    json: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Latency of the loop in ms: sensor to twin, sensor to score, score to command, round trip.

    An observer reads the public topics and takes the wall clock when a record reaches it, so every
    figure includes the way through Kafka to one more reader. Trains first; the measured time has
    no training in it.
    """
    plan = Plan(
        # Training and warm-up come first; the fleet is ended when the measured time is over.
        seconds=seconds + 400,
        cars=cars,
        degraded=max(1, cars // 4),
        seed=11,
        acceleration=1440,
        # Training takes about 40 s; onsets go on through the measured time, so decisions do, too.
        onset_s=20,
        onset_spread_s=seconds + 30,
        history_vehicles=320,
        history_days=5,
    )
    say = (
        (lambda _part, _line: None) if json else (lambda part, line: output.say(f"{part}: {line}"))
    )
    try:
        with Loop(plan, data_dir, mqtt.value, FREE_PORTS, say) as running:
            results, problems = _measure(running, seconds, say)
    except LocalError as error:
        output.fail(str(error))
    output.result(
        {
            "bench": "loop",
            "ok": not problems,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "params": {"cars": cars, "seconds": seconds, "interval_s": plan.interval_s},
            "results": results,
            "unit": "ms",
            "ratio": {},
            "skipped": [],
            "problems": problems,
        }
    )
    raise typer.Exit(output.MISSED if problems else output.OK)


def _forward(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - typer reads the signature
    program = ROOT / "load-test" / f"bench_{name}.py"

    def command(context: typer.Context) -> None:
        if not program.exists():
            output.fail(f"{program} is not there: benches run from a checkout", output.USAGE)
        raise typer.Exit(_run([sys.executable, str(program), *context.args]))

    return command


def _run(argv: list[str]) -> int:
    """Exit code of a program that ends with us: what it started ends with it."""
    child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})  # noqa: S603
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # a terminal tells both; the program stops what it started, and then ends


for _name, _text in _PROGRAMS.items():
    app.command(
        _name,
        help=_text + " `--help` lists its options.",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_forward(_name))


def _measure(running: Loop, seconds: int, say: Any) -> tuple[dict[str, Any], list[str]]:
    fleet = running.start_fleet()
    say("history", "simulating")
    if running.wait(running.start_simulate()) != 0:
        return {}, ["the history could not be simulated (logs/simulate.log)"]
    say("models", "training from Kafka")
    train = running.start_train()
    if running.wait(train) != 0 or last_json(train) is None:
        return {}, ["training failed (logs/train.log)"]
    say("loop", f"measuring for {seconds} s")
    observer = Observer(running.endpoints.kafka)
    pinger = Pinger(str(running.endpoints.api), running.plan.cars)
    pinger.start()
    end = now_ms() + seconds * 1000
    while now_ms() < end:
        running.check()
        observer.read()
        if fleet.exit_code() is not None:
            return {}, ["the fleet ended early (logs/fleet.log)"]
    pinger.stop()
    drain = now_ms() + 5000
    while now_ms() < drain:
        observer.read()
    observer.close()
    results = {name: percentiles(values) for name, values in observer.latencies.items()}
    wanted = ("sensor_to_twin", "sensor_to_score", "score_to_command", "command_round_trip")
    return results, [
        f"no sample of {name}" for name in wanted if not results.get(name, {}).get("n")
    ]


class Observer:
    """Reads `twins`, `scores` and `ledger` from now on and takes the time of each step."""

    def __init__(self, bootstrap: str) -> None:
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self._newest: dict[str, int] = {}
        self._scored_at: dict[str, int] = {}
        self._seen: set[tuple[str, str]] = set()
        self._consumer = kafka.consumer(bootstrap, "cartwin-bench", "cartwin-bench")
        self._consumer.assign(_ends(self._consumer))

    def read(self) -> None:
        """Take what has arrived, waiting at most 50 ms."""
        # `consume` alone would sit on what it has until its time-out: wait for one, then take the rest.
        first = self._consumer.poll(0.05)
        now = now_ms()
        for message in [first, *self._consumer.consume(500, timeout=0)] if first else []:
            value = message.value()
            if message.error() is None and value is not None:
                self._observe(message.topic() or "", orjson.loads(value), now)

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _observe(self, topic: str, record: dict[str, Any], now: int) -> None:
        if topic == "twins":
            newest = max((s["t"] for s in record["reported"].values()), default=0)
            if newest > self._newest.get(record["vehicle_id"], 0):
                if record["vehicle_id"] in self._newest:
                    self.latencies["sensor_to_twin"].append(now - newest)
                self._newest[record["vehicle_id"]] = newest
        elif topic == "scores":
            self.latencies["sensor_to_score"].append(now - record["event_time"])
            self._scored_at[record["id"]] = record["scored_at"]
        else:
            self._command(record, now)

    def _command(self, record: dict[str, Any], now: int) -> None:
        cause = record.get("cause")
        step = (record["id"], record["state"])
        if step in self._seen:
            return
        self._seen.add(step)
        decided = (record["id"], "decided")
        if cause and cause["score"] in self._scored_at and decided not in self._seen:
            self._seen.add(decided)
            self.latencies["score_to_command"].append(now - self._scored_at[cause["score"]])
        if record["name"] == "ping" and record["state"] == "succeeded":
            self.latencies["command_round_trip"].append(now - record["issued_at"])


def _ends(consumer: Consumer) -> list[TopicPartition]:
    ends = []
    for topic in _TOPICS:
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            place = TopicPartition(topic, partition)
            place.offset = consumer.get_watermark_offsets(place, timeout=10)[1]
            ends.append(place)
    return ends


class Pinger(threading.Thread):
    """Sends `ping` commands to random cars over REST at a steady rate, until stopped."""

    def __init__(self, api: str, cars: int) -> None:
        super().__init__(name="pinger", daemon=True)
        self._api = api
        self._cars = cars
        self._halt = threading.Event()

    def run(self) -> None:
        choose = random.Random(1)
        with httpx.Client(base_url=self._api, timeout=10) as client:
            while not self._halt.wait(1 / _PINGS_PER_S):
                vehicle_id = f"car-{choose.randrange(self._cars) + 1:06d}"
                body = {"name": "ping", "args": {}, "ttl_s": 60, "lane": "default"}
                try:
                    client.post(f"/v1/twins/{vehicle_id}/commands", json=body)
                except httpx.HTTPError as error:
                    output.say(f"ping of {vehicle_id} failed: {error}")

    def stop(self) -> None:
        """Send no more and wait for the last answer."""
        self._halt.set()
        self.join()

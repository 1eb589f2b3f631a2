"""A fleet, a broker, an uplink and Kafka, of which each can be killed or frozen; and the accounts.

The fleet is Locust's, so what a car keeps and sends again is what a user of the load test gets. The
accounts are those of `load-test/verdict.py`, from the cars' own logs and from Kafka.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.publish as paho

import verdict
from tests.kafka_log import read_topic
from tests.processes import Process, until
from twin.local.data import Endpoints
from twin.local.process import Child, spawn, stop_all
from twin.local.stack import Stack

ROOT = Path(__file__).parents[1]
FIGURES = ("sent", "acknowledged", "kafka", "lost", "gaps", "held", "again", "duplicates")


class Fleet:
    """Locust cars at QoS 1. `store`: messages that a car keeps, 0 = none."""

    def __init__(
        self, mqtt: str, folder: Path, *, cars: int, interval_s: float, store: int
    ) -> None:
        self.log = folder / "cars"
        self._output = folder / "locust.txt"
        self._read: dict[Path, int] = {}
        self._sent: Counter[tuple[str, int]] = Counter()
        self._covered: Counter[tuple[str, int]] = Counter()
        command = [
            sys.executable, "-m", "locust", "-f", str(ROOT / "load-test" / "locustfile.py"),
            "--headless", "--host", mqtt, "-u", str(cars), "-r", "100", "--run-time", "900s",
            "--only-summary", "--exit-code-on-error", "0", "--interval", str(interval_s),
            "--linger-s", "0", "--cars-log", str(self.log),
            "--store", str(store), "--store-silence-s", "1",
        ]  # fmt: skip
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    def count(self, event: str) -> int:
        """Lines of a kind in the cars' logs."""
        mark = f'"e":"{event}"'.encode()
        return sum(path.read_bytes().count(mark) for path in self.log.glob("*.jsonl"))

    def held(self) -> int:
        """Messages that cars with a store sent and no ack has covered, by their logs."""
        for path in self.log.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                # The last line may not be whole yet.
                new = file.read().rpartition(b"\n")[0]
                self._read[path] = self._read.get(path, 0) + len(new)
            for line in new.splitlines():
                said = json.loads(line) if line else {"e": ""}
                if said["e"] == "sent":
                    self._sent[said["v"], said["session"]] = said["sequence"]
                elif said["e"] == "covered":
                    self._covered[said["v"], said["session"]] = said["number"]
        return self._sent.total() - self._covered.total()

    def end(self) -> None:
        """Cars with a store wait until it is empty; all wait for their PUBACKs and say goodbye."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(120) == 0, self._output.read_text()[-3000:]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Server:
    """A server of a stack, found by its name, that comes back as it was started."""

    def __init__(self, stack: Stack, name: str, folder: Path) -> None:
        (child,) = [child for child in stack.children() if child.name == name]
        self.child: Child = child
        self._log = folder / f"{name}-again.log"
        proc = Path(f"/proc/{child.pid}")
        self._argv = [part.decode() for part in (proc / "cmdline").read_bytes().split(b"\0")[:-1]]
        told = (part.decode() for part in (proc / "environ").read_bytes().split(b"\0")[:-1])
        self._environment = dict(part.split("=", 1) for part in told if "=" in part)

    def kill(self) -> None:
        """SIGKILL."""
        self.child.kill()

    def start(self) -> None:
        """The same command line again."""
        self.child = spawn(self.child.name, self._argv, self._environment, self._log)

    def stop(self) -> None:
        """End it for good; a stack does not know of a child that was started again."""
        stop_all([self.child], 15)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that is stopped by SIGSTOP meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_for(seconds: float) -> None:
    """How long a fault lasts. Nothing is decided by it."""
    time.sleep(seconds)


class Road:
    """cars -> broker -> uplink -> Kafka, under load. `broker`: name of the stack's child that it is."""

    def __init__(
        self,
        stack: Stack,
        endpoints: Endpoints,
        folder: Path,
        *,
        cars: int,
        interval_s: float,
        store: int,
        broker: str = "mosquitto",
        **told: str,
    ) -> None:
        self.endpoints = endpoints
        self.broker = Server(stack, broker, folder)
        fast = {"UPLINK_ACK_S": "0.3", "UPLINK_QUEUE_PROBE": "0"}
        self.uplink = Process("uplink", endpoints, folder, **{**fast, **told})
        self.cars, self.per_s = cars, cars / interval_s
        self._make = lambda: Fleet(
            endpoints.mqtt[0], folder, cars=cars, interval_s=interval_s, store=store
        )
        self._children: list[Any] = []

    def __enter__(self) -> "Road":
        self.uplink.start().ready()
        self.fleet = self._make()
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.kill()
        if self.uplink.child is not None:
            self.uplink.kill()
        self.broker.stop()

    def passes(self, count: int) -> None:
        """Return when Kafka has so many more messages from this uplink."""
        name = "cartwin_uplink_produced_total"
        before = self.uplink.metrics()[name]
        until(
            lambda: self.uplink.check() and self.uplink.metrics()[name] >= before + count,
            lambda: f"nothing passes: {self.uplink.get('/readyz')}",
            180,
        )

    def acknowledges(self, count: int) -> None:
        """Return when the broker has acknowledged so many more messages to the cars."""
        before = self.fleet.count("acked")
        until(lambda: self.fleet.count("acked") >= before + count, "no PUBACKs", 180)

    def kill_broker(self, unread: int) -> None:
        """SIGKILL while it has messages that the uplink could not take; then start it again, and return
        when all cars have come back to it."""
        assert self.uplink.child is not None
        with frozen(self.uplink.child.pid):
            self.acknowledges(unread)
            before = self.fleet.count("connect")
            self.broker.kill()
        self.broker.start()
        until(lambda: self.fleet.count("connect") >= before + self.cars, "cars stay away", 120)

    def catches_up(self) -> None:
        """Return when cars with a store hold no more than what they send in some seconds."""
        until(
            lambda: self.fleet.held() <= 3 * self.per_s,
            lambda: f"the cars hold {self.fleet.held()} messages",
            120,
        )

    def account(self) -> dict[str, Any]:
        """End the fleet; the verdict when all that the broker has is in Kafka."""
        self.fleet.end()
        self.uplink.ready()
        parts = urlsplit(self.endpoints.mqtt[0])
        marker = f"marker-{time.time_ns()}"
        # It is behind everything that the cars sent, in the queue of the uplink's session.
        paho.single(
            f"vehicles/{marker}/telemetry", json.dumps({"speed": 1}), qos=1,
            hostname=parts.hostname, port=parts.port,
        )  # fmt: skip
        until(
            lambda: any(
                record.key() == marker.encode()
                for record in read_topic(self.endpoints.kafka, "telemetry")
            ),
            "the last message does not come",
        )
        until(lambda: self.uplink.metrics()["cartwin_uplink_in_flight"] == 0, "it is not at rest")
        return verdict.judge(self.fleet.log, self.endpoints.kafka, verdict.SCHEMA, 0)


def sentence(what: str, line: dict[str, Any]) -> str:
    """The figures of a run for people: sent / acknowledged / in Kafka / lost, and what explains them."""
    return f"{what}: " + ", ".join(f"{name} {line[name]}" for name in FIGURES)


def explained(line: dict[str, Any]) -> bool:
    """The gaps in Kafka are what the logs of the cars say, and Kafka has nothing that was not sent."""
    return not any(
        "numbers are missing" in problem or "sent by no car" in problem
        for problem in line["problems"]
    )

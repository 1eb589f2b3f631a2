"""One run of the whole loop: stack, fleet of cars, training on a simulated history, verdict.

Shared by `cartwin demo` and `cartwin bench loop`. Everything is a child process that ends with us;
what each one said is in `<data-dir>/logs`.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import orjson

from twin.local import Endpoints, Options, Ports, Stack, ca
from twin.local.errors import Died
from twin.local.options import MqttBroker
from twin.local.process import Child, spawn, stop_all, tail

ROOT: Final = Path(__file__).parents[2]
LOCUSTFILE: Final = ROOT / "load-test" / "locustfile.py"
VERDICT: Final = ROOT / "load-test" / "verdict.py"
_SPAWN_PER_S: Final = 40
"""Cars connected a second; amqtt takes 1 ms a connect."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What drives and what is learnt from. Times in seconds on the clock."""

    seconds: int
    cars: int
    degraded: int
    seed: int
    acceleration: int
    onset_s: float
    onset_spread_s: float
    history_vehicles: int
    history_days: float
    interval_s: float = 1.0


class Loop:
    """The running loop; use with `with`. All children are started from the calling thread."""

    def __init__(
        self,
        plan: Plan,
        data_dir: Path,
        mqtt: MqttBroker,
        ports: Ports,
        report: Callable[[str, str], None],
        *,
        tls: bool = False,
    ) -> None:
        self.plan = plan
        self._dir = data_dir.resolve()
        options = Options(
            data_dir=data_dir, fresh=True, ports=ports, mqtt=mqtt, tls=tls, cars=plan.cars
        )
        self._stack = Stack(options, report=report)
        self._children: list[Child] = []
        self._api = httpx.Client(timeout=5)

    def __enter__(self) -> Self:
        self.endpoints: Endpoints = self._stack.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stop_all(self._children, 15.0)
        self._stack.stop()
        self._api.close()

    @property
    def cars_log(self) -> Path:
        """Folder of the cars' own record of what they sent and got."""
        return self._dir / "cars"

    def start_fleet(self) -> Child:
        """Locust in one process: every car with its own MQTT connection."""
        plan = self.plan
        self.cars_log.mkdir(exist_ok=True)
        arguments: dict[str, object] = {
            "--users": plan.cars,
            "--spawn-rate": _SPAWN_PER_S,
            "--run-time": f"{plan.seconds}s",
            "--host": ",".join(self.endpoints.mqtt),
            "--cars-log": self.cars_log,
            "--degraded": plan.degraded,
            "--onset-s": plan.onset_s,
            "--onset-spread-s": plan.onset_spread_s,
            "--acceleration": plan.acceleration,
            "--interval": plan.interval_s,
            "--seed": plan.seed,
            # A command that a car refuses is a figure of the verdict, not a failure of Locust.
            "--exit-code-on-error": 0,
        }
        return self._start(
            "fleet", ["-m", "locust", "-f", str(LOCUSTFILE), "--headless"], arguments
        )

    def start_simulate(self) -> Child:
        """Write the history that is learnt from: other cars than the live ones."""
        plan = self.plan
        arguments: dict[str, object] = {
            "--vehicles": plan.history_vehicles,
            "--days": plan.history_days,
            "--seed": plan.seed + 1,
            "--interval-s": plan.interval_s,
            "--acceleration": plan.acceleration,
            "--topic": "history",
        }
        return self._start("simulate", ["-m", "models", "simulate", "--json"], arguments)

    def start_train(self) -> Child:
        """Train both models from Kafka and publish them; the scorer picks them up by itself."""
        arguments: dict[str, object] = {"--topic": "history", "--seed": self.plan.seed}
        return self._start("train", ["-m", "models", "train", "--json"], arguments)

    def start_verdict(self, deadline_s: int) -> Child:
        """Count everything, by a program that shares no code with the services."""
        arguments: dict[str, object] = {
            "--cars-log": self.cars_log,
            "--kafka": self.endpoints.kafka,
            "--deadline-s": deadline_s,
        }
        return self._start("verdict", [str(VERDICT), "--json"], arguments)

    def wait(self, child: Child, while_waiting: Callable[[], None] = lambda: None) -> int:
        """Until `child` ends: its exit code. Raises `Died` when a part of the stack dies before."""
        while (code := child.wait(0.5)) is None:
            self.check()
            while_waiting()
        return code

    def check(self) -> None:
        """Raise `Died` when a part of the stack is no more."""
        for part in self._stack.children():
            if part.exit_code() is not None:
                raise Died(part.obituary())

    def fleet_counts(self) -> dict[str, Any]:
        """`GET /v1/fleet`; empty when the API did not answer this time."""
        return self._get("/v1/fleet")

    def latest_commands(self) -> list[dict[str, Any]]:
        """The newest commands; empty when the API did not answer this time."""
        items: list[dict[str, Any]] = self._get("/v1/commands").get("items", [])
        return items

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = self._api.get(f"{self.endpoints.api}{path}")
            found: dict[str, Any] = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    def _start(self, name: str, head: list[str], arguments: dict[str, object]) -> Child:
        argv = [sys.executable, *head]
        for option, value in arguments.items():
            argv += [option, str(value)]
        env = {
            **os.environ,
            "KAFKA_BOOTSTRAP": self.endpoints.kafka,
            "REDIS_URL": self.endpoints.redis,
            "MQTT_URLS": ",".join(self.endpoints.mqtt),
            "MODEL_STORE": str(self._dir / "models"),
            **({} if self.endpoints.ca is None else ca.cars(Path(self.endpoints.ca))),
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
        }
        child = spawn(name, argv, env, self._dir / "logs" / f"{name}.log")
        self._children.append(child)
        return child


def last_json(child: Child) -> dict[str, Any] | None:
    """The last line of a child's log that is a JSON object with the result of its command."""
    for line in reversed(tail(child.log, lines=40, line_chars=100_000).splitlines()):
        text = line.strip()
        if not text.startswith("{"):
            continue
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict) and "event" not in value:
            return value
    return None


def free_or_any(ports: Ports, report: Callable[[str, str], None]) -> Ports:
    """The usual ports where they are free, else any: a demo must not fail for a busy 8080."""
    if not _free_or_any(ports.api):
        report("api", f"port {ports.api} is taken, using another")
    return Ports(
        api=_free_or_any(ports.api),
        mqtt=_free_or_any(ports.mqtt),
        kafka=_free_or_any(ports.kafka),
        redis=_free_or_any(ports.redis),
    )


def _free_or_any(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def percentiles(values: Iterable[float]) -> dict[str, float | int]:
    """Count, p50 and p99 (nearest rank) in the unit of the values."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    rank = len(ordered) - 1
    return {
        "n": len(ordered),
        "p50": round(ordered[round(rank * 0.50)], 1),
        "p99": round(ordered[round(rank * 0.99)], 1),
    }


def now_ms() -> int:
    """Wall clock, ms: all processes of a local loop share it."""
    return time.time_ns() // 1_000_000

"""The embedded stack as a plan: infrastructure, topics, our processes; watched, stopped in reverse.

The parts of the infrastructure do not need each other, and neither do our processes, so each group
is started as a whole and then waited for part by part. A caller uses `start` and `stop` (or
`with`), and `watch`, which returns when a child has died: one policy, then everything stops.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from twin.local import ca, data, jars, kafka, mqtt, plan, probe, process, redis, topics
from twin.local.data import Endpoints
from twin.local.errors import Died, Interrupted, LocalError
from twin.local.options import APPLICATION, Options
from twin.local.plan import Plan
from twin.local.ports import HOST
from twin.local.process import Child

Report = Callable[[str, str], None]
"""Called with the name of a part and a line about it."""

_WATCH_S: Final = 0.2


class Stack:
    """One embedded stack; can be started once."""

    def __init__(self, options: Options, report: Report = lambda part, line: None) -> None:
        for name in options.processes:
            if name not in APPLICATION:
                raise LocalError(
                    f"Process {name!r} is unknown: {', '.join(APPLICATION)} are accepted."
                )
        self._options = options
        self._report = report
        self.data_dir = options.data_dir.resolve()
        # A plain flag: an Event's lock must not be taken by a signal handler.
        self._interrupted = False
        self._groups: list[list[Child]] = []
        # The process that prepares something and ends by itself.
        self._helper: Child | None = None
        self._held = ExitStack()
        # Told to the uplink and announced in endpoints.json: `cartwin replay` must know it.
        self._validation = {**os.environ, **options.env}.get("VALIDATION") or "enforce"

    def start(self) -> Endpoints:
        """Start everything and wait until it is ready.

        Raises `LocalError`; what was started by then is stopped again.
        """
        try:
            self._held.enter_context(data.hold(self.data_dir, fresh=self._options.fresh))
            for name in ("logs", "models"):
                (self.data_dir / name).mkdir(exist_ok=True)
            where = plan.make(self._options)
            self._start_infrastructure(where)
            self._start_processes(where)
            endpoints = Endpoints(
                api=where.api,
                mqtt=where.mqtt,
                kafka=where.kafka,
                redis=where.redis,
                pid=os.getpid(),
                health=where.health,
                ca=str(self._authority) if self._options.tls else None,
                validation=self._validation if "uplink" in self._options.processes else None,
            )
            data.write_endpoints(self.data_dir, endpoints)
        except BaseException:
            self.stop()
            raise
        return endpoints

    def interrupt(self) -> None:
        """Let `start` or `watch` end soon; a signal handler or another thread may call it."""
        self._interrupted = True

    def watch(self) -> str | None:
        """Block until `interrupt` (None) or until a child dies (which one, and its last words)."""
        while not self._interrupted:
            for child in self.children():
                if child.exit_code() is not None:
                    return child.obituary()
            time.sleep(_WATCH_S)
        return None

    def stop(self) -> None:
        """Stop in reverse order: our processes, then MQTT, Kafka, Redis."""
        if self._helper is not None:
            self._helper.kill()
        while self._groups:
            for name in process.stop_all(self._groups.pop(), self._options.deadlines.stop):
                self._report(name, "killed, it did not stop in time")
        self._held.close()

    def children(self) -> list[Child]:
        """Everything that was started, in start order."""
        return [child for group in self._groups for child in group]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_infrastructure(self, where: Plan) -> None:
        # Redis and MQTT come up while Kafka's directory is prepared. The order of the groups is the
        # reverse of the order in which they are stopped.
        kafka_jars = [] if where.kafka_port is None else self._jars(jars.KAFKA)
        redis_child = self._start_redis(where)
        kafka_group: list[Child] = []
        self._groups.append(kafka_group)
        mqtt_child = self._start_mqtt(where)
        formatting = self._format_kafka(where, kafka_jars)
        deadline = self._options.deadlines.infrastructure
        shown = probe.url_without_password(where.redis)
        self._wait("redis", shown, probe.redis_server(where.redis), deadline, redis_child)
        told = {**os.environ, **where.mqtt_access("uplink", self.data_dir)}
        for url, shown in zip(where.mqtt_services, where.mqtt, strict=True):
            is_ready = probe.mqtt(url, probe.mqtt_secured(url, told))
            self._wait("mqtt", shown, is_ready, deadline, mqtt_child)
        if formatting is not None:
            self._run_to_end(formatting, deadline)
            if formatting.exit_code() != 0:
                raise Died(formatting.obituary())
        kafka_child = None
        if where.kafka_port is not None:
            command = kafka.server_command(self._options.kafka_jvm, kafka_jars, self._kafka_config)
            kafka_child = self._spawn("kafka", command)
            kafka_group.append(kafka_child)
        self._wait("kafka", where.kafka, probe.kafka(where.kafka), deadline, kafka_child)
        began = time.monotonic()
        topics.create(where.kafka, self._options.partitions, deadline)
        self._report("topics", f"ready in {time.monotonic() - began:.1f} s")

    def _start_redis(self, where: Plan) -> Child | None:
        if where.redis_port is None:
            return None
        directory = self.data_dir / "redis"
        directory.mkdir(exist_ok=True)
        child = self._spawn("redis", redis.server_command(directory, where.redis_port))
        self._groups.append([child])
        return child

    def _start_mqtt(self, where: Plan) -> Child | None:
        if where.mqtt_port is None:
            return None
        kind = mqtt.choose(self._options.mqtt, os.environ)
        bundle = mqtt.jars_of(kind)
        found = [] if bundle is None else self._jars(bundle)
        secured = None
        if where.mqtt_services_port is not None:
            secured = mqtt.Secured(where.mqtt_services_port, self._authority / "broker")
        folder = self.data_dir / "mqtt"
        command = mqtt.prepare(kind, folder, where.mqtt_port, os.environ, found, secured)
        if secured is not None:
            self._make_certificates()
        child = self._spawn(kind, command)
        self._groups.append([child])
        return child

    @property
    def _authority(self) -> Path:
        return self.data_dir / plan.AUTHORITY

    def _make_certificates(self) -> None:
        """The authority, unless it is there already, and certificates for the cars that have none."""
        began = time.monotonic()
        self._authority.mkdir(mode=0o700, exist_ok=True)
        if not (self._authority / "private").exists():
            ca.init(self._authority, [HOST, "localhost"])
        made = ca.issue_all(self._authority, ca.numbered(self._options.cars))
        took = time.monotonic() - began
        self._report("ca", f"{made} certificates of cars made in {took:.1f} s in {self._authority}")

    @property
    def _kafka_config(self) -> Path:
        return self.data_dir / "kafka.properties"

    def _jars(self, bundle: jars.Bundle) -> list[str]:
        file = jars.class_path_file(os.environ, bundle)
        found = jars.read_class_path(file)
        if found is not None:
            return found
        self._report(bundle.name, f"downloading its jars ({bundle.megabytes} MB, once)")
        command = [sys.executable, "-m", "twin.local.jars", bundle.name, str(file)]
        resolving = self._helper = self._spawn(f"{bundle.name}-jars", command)
        self._run_to_end(resolving, self._options.deadlines.download)
        found = jars.read_class_path(file)
        if resolving.exit_code() != 0 or found is None:
            raise jars.unavailable(bundle, resolving.log)
        return found

    def _format_kafka(self, where: Plan, kafka_jars: list[str]) -> Child | None:
        """Write Kafka's configuration; start to prepare its directory if it is new."""
        if where.kafka_port is None or where.kafka_controller_port is None:
            return None
        log_dir = self.data_dir / "kafka"
        self._kafka_config.write_text(
            kafka.properties(log_dir, where.kafka_port, where.kafka_controller_port)
        )
        if kafka.is_formatted(log_dir):
            return None
        command = kafka.format_command(self._options.kafka_jvm, kafka_jars, self._kafka_config)
        self._helper = self._spawn("kafka-format", command)
        return self._helper

    def _start_processes(self, where: Plan) -> None:
        group: list[Child] = []
        self._groups.append(group)
        for name in self._options.processes:
            told = {
                # Here recordings of days are replayed in seconds.
                "UPLINK_VEHICLE_RATE": os.environ.get("UPLINK_VEHICLE_RATE", "0"),
                **where.environment(name, self.data_dir),
                **self._options.env,
                "VALIDATION": self._validation,
            }
            group.append(self._spawn(name, [sys.executable, *APPLICATION[name]], told))
        for child in group:
            url = where.health[child.name]
            deadline = self._options.deadlines.application
            self._wait(child.name, url, probe.http_ready(url), deadline, child)

    def _spawn(self, name: str, argv: Sequence[str], told: dict[str, str] | None = None) -> Child:
        if self._interrupted:
            raise Interrupted(f"Stopped before {name} was started.")
        log = self.data_dir / "logs" / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        try:
            return process.spawn(name, argv, {**os.environ, **(told or {})}, log)
        except OSError as error:
            raise LocalError(f"{name} cannot be started: {argv[0]}: {error.strerror}.") from None

    def _wait(
        self, name: str, shown: str, is_ready: probe.Probe, deadline_s: float, child: Child | None
    ) -> None:
        began = child.started if child else time.monotonic()
        probe.wait_ready(
            name if child else f"{name} (not started by us)",
            is_ready,
            deadline_s,
            child=child,
            watched=self.children(),
            interrupted=lambda: self._interrupted,
        )
        self._report(name, f"ready in {time.monotonic() - began:.1f} s at {shown}")

    def _run_to_end(self, child: Child, deadline_s: float) -> None:
        """Wait for a helper that ends by itself; killed when it does not, or on `interrupt`."""
        end = time.monotonic() + deadline_s
        while child.wait(_WATCH_S) is None:
            if self._interrupted:
                child.kill()
                raise Interrupted(f"Stopped while waiting for {child.name}.")
            if time.monotonic() > end:
                child.kill()

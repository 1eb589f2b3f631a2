"""`cartwin replay`: recorded cars through the MQTT door, then every row and every twin checked.

The uplink's validation mode is its own setting, and a car may not choose it. So replay takes a
running stack whose mode is the one asked for, and refuses another; where none runs, or with
`--standalone`, it starts one of its own in a temporary folder (Kafka, Redis, MQTT, uplink, worker)
and removes it. Addresses given by hand announce no mode: a wrong one shows up as a missed check.
"""

import math
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twin.cli import endpoints, output
from twin.client import replay as replaying
from twin.client import replay_plan
from twin.client.replay_plan import Plan
from twin.client.replay_rows import DEFAULT_START_MS
from twin.client.replay_source import BadRecording, sources
from twin.kit.clock import SystemClock
from twin.local.options import FREE_PORTS, Options
from twin.local.stack import Stack
from twin.wire.catalogue import BY_NAME
from twin.wire.errors import CartwinError
from twin.wire.telemetry import Validation

PROCESSES = ("uplink", "worker")


@dataclass(frozen=True, slots=True)
class Door:
    """Where to publish and where to count; `stack` is ours when we started it."""

    mqtt: tuple[str, ...]
    kafka: str
    stack: Stack | None = None


def replay(
    path: Annotated[Path, typer.Argument(help="CSV file, folder of them, or .tar(.gz|.xz).")],
    speed: Annotated[
        str, typer.Option(help="Recorded seconds per second: 1 as recorded, 10, ... or max.")
    ] = "max",
    start: Annotated[
        str | None,
        typer.Option(
            help="Time of the first row where a recording has no clock (carOBD), ISO 8601;"
            " default 2020-01-01T00:00:00Z."
        ),
    ] = None,
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Expect rows with impossible values to be rejected.")
    ] = False,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Use a temporary stack even if one runs.")
    ] = False,
    mqtt: Annotated[
        str | None, typer.Option(envvar="MQTT_URLS", help="Brokers, mqtt://host:port,...")
    ] = None,
    kafka: Annotated[
        str | None, typer.Option(envvar="KAFKA_BOOTSTRAP", help="Kafka, host:port,...")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Drive recorded cars through MQTT and check that Kafka and the twins hold exactly them.

    Known by their header: the seed file of simulated cars (`time,car,...`) and carOBD, a real car
    over OBD-II (one trip a file, vehicle `etios-<file name>`, one row a second). A row becomes one
    message: sequence = number of the row within its vehicle, from 1; session = first event time of
    the recording, so a second replay changes no twin.

    Impossible values are kept and marked (`warn`) or, with `--enforce`, rejected: the uplink must
    run in that mode (`cartwin up --validation warn`). Without a running stack a temporary one is
    used. Needs the right to publish for all these cars.

    Exit code 1 if a row is missing or a twin does not report the last values of its car.
    """
    pace = _speed(speed)
    mode: Validation = "enforce" if enforce else "warn"
    try:
        with _ended_cleanly(), sources(path) as found:
            with _progress() as progress:
                task = progress.add_task(f"reading {path.name}", total=None)
                plan = replay_plan.make(
                    found, _start(start), mode, lambda rows: progress.update(task, completed=rows)
                )
            if start is not None and all(one.form.time for one in plan.recordings):
                raise BadRecording(
                    f"--start is for recordings without a clock; {path} has a time column"
                )
            replaying.check_clock(plan, SystemClock().now_ms(), pace)
            for line in about(plan):
                output.say(line)
            result = _run(plan, pace, _given(mqtt, kafka), standalone=standalone)
    except BadRecording as error:
        output.fail(str(error), output.USAGE)
    except CartwinError as error:
        output.fail(str(error))
    for line in verdict(result):
        output.say(line)
    if json:
        output.result(result.document())
    raise typer.Exit(output.OK if result.ok else output.MISSED)


def about(plan: Plan) -> Iterator[str]:
    """What is about to be replayed, and how much of it is suspect."""
    yield f"{plan.rows:,} rows of {len(plan.vehicles):,} cars, {len(plan.recordings)} file(s)"
    if plan.ignored:
        yield f"not sent, no signal for them: {', '.join(plan.ignored)}"
    if plan.suspect:
        yield f"{plan.suspect:,} rows are suspect:"
    for name, one in sorted(plan.by_signal.items(), key=lambda entry: -entry[1].rows):
        signal = BY_NAME[name]
        unit = "" if signal.unit == "1" else f" {signal.unit}"
        whole = ", an integer," if signal.type == "int" else ""
        yield (
            f"  {name}: {one.rows:,} rows, worst {one.worst:g}{unit};"
            f" {signal.low:g} to {signal.high:g}{unit}{whole} is possible"
        )


def verdict(result: replaying.Result) -> Iterator[str]:
    """What came out."""
    plan, tally = result.plan, result.tally
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.by_reason.items()))
    yield (
        f"{plan.rows:,} rows = {tally.accepted:,} accepted + {tally.rejected:,} rejected"
        + (f" ({reasons})" if reasons else "")
        + f", {result.seconds:.1f} s"
    )
    if tally.duplicates:
        yield f"{tally.duplicates:,} records came twice (at least once is promised)"
    for problem in result.problems:
        yield f"missed: {problem}"
    if result.ok:
        yield f"{result.twins:,} twins report exactly the last values of their cars"


def _run(
    plan: Plan, speed: float | None, given: Door | None, *, standalone: bool
) -> replaying.Result:
    with _door(given, plan.mode, standalone=standalone) as door, _progress() as progress:
        cars = sum(1 for vehicle in plan.vehicles.values() if vehicle.accepted)
        tasks = {
            "sent": progress.add_task("sent", total=plan.rows),
            "acknowledged": progress.add_task("acknowledged by the broker", total=plan.rows),
            "kafka": progress.add_task("in Kafka", total=plan.rows),
            "twins": progress.add_task("twins up to date", total=cars),
        }

        def show(now: replaying.Progress) -> None:
            for name, task in tasks.items():
                progress.update(task, completed=getattr(now, name))

        result = replaying.run(plan, door.mqtt, door.kafka, speed, show)
        if not result.ok and door.stack is not None:
            dead = (child for child in door.stack.children() if child.exit_code() is not None)
            result.problems.extend(child.obituary() for child in dead)
        return result


@contextmanager
def _door(given: Door | None, mode: Validation, *, standalone: bool) -> Iterator[Door]:
    if given is not None and not standalone:
        yield given
        return
    running = None if standalone else endpoints.find()
    if running is not None:
        if running.validation != mode:
            other = "without --enforce" if mode == "enforce" else "with --enforce"
            output.fail(
                f"the running stack validates with {running.validation!r}, this replay wants"
                f" {mode!r}: start it with `cartwin up --validation {mode}`, use --standalone"
                + (f", or replay {other}" if running.validation != "off" else ""),
                output.USAGE,
            )
        if running.ca is not None:
            output.fail(
                "the running stack speaks TLS, where a connection is one car and may not speak for all"
                " that are recorded: use --standalone",
                output.USAGE,
            )
        yield Door(running.mqtt, running.kafka)
        return
    output.say("starting a temporary stack; `cartwin up` keeps one")
    with tempfile.TemporaryDirectory(prefix="cartwin-replay-") as folder:
        options = Options(
            data_dir=Path(folder, "stack"),
            ports=FREE_PORTS,
            processes=PROCESSES,
            env={"VALIDATION": mode},
        )
        stack = Stack(options, lambda part, line: output.say(f"  {part}: {line}"))
        try:
            started = stack.start()
            yield Door(started.mqtt, started.kafka, stack)
        finally:
            stack.stop()


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that no temporary folder is left."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _given(mqtt: str | None, kafka: str | None) -> Door | None:
    if not mqtt and not kafka:
        return None
    if not mqtt or not kafka:
        output.fail(
            "--mqtt and --kafka (MQTT_URLS and KAFKA_BOOTSTRAP) are given together or not at all",
            output.USAGE,
        )
    urls = tuple(url.strip() for url in mqtt.split(",") if url.strip())
    return Door(urls, kafka)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        output.fail(f"--speed {text!r} is not accepted: a number above 0, or max", output.USAGE)
    return speed


def _start(text: str | None) -> int:
    if text is None:
        return DEFAULT_START_MS
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment.timestamp() < 0:
        output.fail(
            f"--start {text!r} is not accepted: a time since 1970 such as 2020-01-01 or"
            " 2020-01-01T08:00:00Z",
            output.USAGE,
        )
    return round(moment.timestamp() * 1000)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.console,
        transient=True,
        disable=not output.console.is_terminal,
    )

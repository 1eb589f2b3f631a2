"""`cartwin demo`: the whole loop before your eyes, and a count of every message at the end."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from twin.cli import output
from twin.cli.loop import LOCUSTFILE, Loop, Plan, free_or_any, last_json, now_ms
from twin.cli.up import PLAIN_PORT, TLS_PORT, Mqtt
from twin.local import LocalError, Ports

_LINE_EVERY_S = 10
"""Without a terminal: one line about the fleet so often."""


def demo(
    seconds: Annotated[
        int,
        typer.Option(
            min=150, help="How long the cars drive; training takes the first minute or two."
        ),
    ] = 240,
    cars: Annotated[
        int, typer.Option(min=10, max=1000, help="Live cars, one connection each.")
    ] = 200,
    degraded: Annotated[int, typer.Option(min=1, help="How many of them develop a fault.")] = 20,
    seed: Annotated[int, typer.Option(help="Same seed, same cars and faults.")] = 7,
    mqtt: Annotated[Mqtt, typer.Option(help="MQTT broker to start.")] = Mqtt.AUTO,
    tls: Annotated[
        bool, typer.Option("--tls", help="Cars and services come by TLS, each with a certificate.")
    ] = False,
    data_dir: Annotated[Path, typer.Option(help="Emptied at start.")] = Path(".cartwin-demo"),
    json: Annotated[bool, typer.Option("--json", help="No progress, only the JSON line.")] = False,
) -> None:
    """Drive 200 cars round the loop: twins, scores, alarms, commands; then check every message.

    A component degrades in some of the cars, 1,440 times faster than in life (one second is 24
    minutes of wear), so that you see alarm, command and outcome within minutes. The models are
    trained in the first minutes, from Kafka, on a simulated history of other cars. Ends with one
    JSON line; exit code 0 only if nothing was lost and every check holds.
    """
    if not LOCUSTFILE.exists():
        output.fail(f"{LOCUSTFILE} is not there: the demo runs from a checkout", output.USAGE)
    if degraded > cars:
        output.fail(f"--degraded {degraded} is more than --cars {cars}", output.USAGE)
    plan = Plan(
        seconds=seconds,
        cars=cars,
        degraded=degraded,
        seed=seed,
        acceleration=1440,
        # The models are there after about 100 s; every fault has time to be seen and answered.
        onset_s=min(90, seconds * 0.35),
        onset_spread_s=seconds * 0.1,
        history_vehicles=320,
        history_days=5,
    )
    say = (
        (lambda _part, _line: None) if json else (lambda part, line: output.say(f"{part}: {line}"))
    )
    try:
        ports = free_or_any(Ports(mqtt=TLS_PORT if tls else PLAIN_PORT), say)
        with Loop(plan, data_dir, mqtt.value, ports, say, tls=tls) as loop:
            verdict = _drive(loop, show=not json)
    except LocalError as error:
        output.fail(str(error))
    output.result(verdict)
    raise typer.Exit(output.OK if verdict["ok"] else output.MISSED)


def _drive(loop: Loop, *, show: bool) -> dict[str, Any]:
    screen = Screen(loop, show)
    fleet = loop.start_fleet()
    problems: list[str] = []
    with screen:
        screen.stage = "simulating a history to learn from"
        trained: dict[str, Any] | None = None
        if loop.wait(loop.start_simulate(), screen.refresh) != 0:
            problems.append("the history could not be simulated (logs/simulate.log)")
        else:
            screen.stage = "training autoencoder and LSTM from Kafka"
            train = loop.start_train()
            code = loop.wait(train, screen.refresh)
            trained = last_json(train)
            if code != 0 or trained is None:
                problems.append("training failed (logs/train.log)")
        screen.stage = "models are live: scoring every car"
        if loop.wait(fleet, screen.refresh) != 0:
            problems.append("the fleet reported failures (logs/fleet.log)")
        screen.stage = "counting every message"
        child = loop.start_verdict(deadline_s=90)
        loop.wait(child, screen.refresh)
    verdict = last_json(child)
    if verdict is None:
        problems.append("the checker gave no result (logs/verdict.log)")
        verdict = {"ok": False}
    elif trained is not None and verdict.get("versions") != [trained.get("version")]:
        problems.append(f"scored by {verdict.get('versions')}, trained {trained.get('version')}")
    problems += _missed(verdict)
    verdict["trained"] = trained
    verdict["problems"] = [*verdict.get("problems", []), *problems]
    verdict["ok"] = bool(verdict["ok"]) and not problems
    return verdict


def _missed(verdict: dict[str, Any]) -> list[str]:
    """What the demo asks beyond the checker: its cars are well-formed, and its faults all show."""
    problems = []
    if verdict.get("rejected"):
        problems.append(f"{verdict['rejected']} messages of well-formed cars were rejected")
    if not 0 < verdict.get("acknowledged", 0) == verdict.get("sent", 0):
        problems.append("not every message that was sent was acknowledged to its car")
    if verdict.get("alarms_on_degraded", 0) * 2 <= verdict.get("degraded", 0):
        problems.append("at most half of the degraded cars had an alarm")
    return problems


class Screen:
    """What a person watches: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, loop: Loop, show: bool) -> None:
        self.stage = "starting"
        self._loop = loop
        self._show = show
        self._terminal = show and output.console.is_terminal
        self._live = Live(console=output.console, auto_refresh=False) if self._terminal else None
        self._started = self._printed = now_ms()

    def __enter__(self) -> None:
        if self._show:
            output.say(f"page: {self._loop.endpoints.api}  (Ctrl-C ends everything)")
        if self._live:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def refresh(self) -> None:
        """Show the state of the fleet, at most every second."""
        now = now_ms()
        pause = 1000 if self._live else _LINE_EVERY_S * 1000
        if not self._show or now - self._printed < pause:
            return
        self._printed = now
        fleet, commands = self._loop.fleet_counts(), self._loop.latest_commands()
        seconds = (now - self._started) // 1000
        if self._live:
            self._live.update(_table(seconds, self.stage, fleet, commands), refresh=True)
        else:
            health = fleet.get("health", {})
            output.say(
                f"{seconds:4d} s  {self.stage}; twins {fleet.get('total', 0)},"
                f" online {fleet.get('presence', {}).get('online', 0)},"
                f" warning {health.get('warning', 0)}, alarm {health.get('alarm', 0)},"
                f" commands {len(commands)}"
            )


def _table(
    seconds: int, stage: str, fleet: dict[str, Any], commands: list[dict[str, Any]]
) -> Table:
    table = Table(title=f"{seconds} s: {stage}", title_justify="left", expand=True)
    for column in ("twins", "presence", "health", "latest commands"):
        table.add_column(column)
    table.add_row(
        str(fleet.get("total", 0)),
        _counts(fleet.get("presence", {})),
        _counts(fleet.get("health", {})),
        "\n".join(f"{c['vehicle_id']} {c['name']} {c['state']}" for c in commands[:8]),
    )
    return table


def _counts(counts: dict[str, int]) -> str:
    return "\n".join(f"{name} {number}" for name, number in sorted(counts.items()))

"""`cartwin up`: start in the foreground, say how it goes, wait, stop.

Progress goes to stderr; stdout gets nothing, or with `json_output` exactly one line of JSON once
everything is ready. Ctrl-C and SIGTERM stop it, also while it starts.
"""

import json
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.markup import escape

from twin.local import ca, probe
from twin.local.data import Endpoints
from twin.local.errors import Interrupted, LocalError
from twin.local.options import Options
from twin.local.stack import Stack
from twin.wire.topics import mqtt_topic

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(
    options: Options,
    json_output: bool = False,
    stderr: IO[str] | None = None,
    stdout: IO[str] | None = None,
) -> int:
    """Run a stack until a signal (0) or until it cannot start or a child dies (1)."""
    console = Console(file=stderr or sys.stderr, highlight=False, soft_wrap=True)
    began = time.monotonic()

    def report(part: str, line: str) -> None:
        console.print(f"  [bold]{escape(part):<10}[/bold] {escape(line)}")

    try:
        stack = Stack(options, report)
        with _interrupted_by_signals(stack):
            endpoints = stack.start()
            try:
                console.print(_summary(endpoints, time.monotonic() - began))
                if json_output:
                    print(json.dumps(endpoints.public()), file=stdout or sys.stdout, flush=True)
                death = stack.watch()
                console.print("stopping")
            finally:
                stack.stop()
    except Interrupted as stopped:
        console.print(escape(str(stopped)))
        return 0
    except LocalError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    if death is not None:
        console.print(f"[red]{escape(death)}[/red]")
        return 1
    return 0


def _summary(endpoints: Endpoints, took_s: float) -> str:
    page = f", page {endpoints.api}" if endpoints.api else ""
    car = "" if endpoints.ca is None else f"{by_hand(endpoints.mqtt[0], Path(endpoints.ca))}\n"
    return f"{escape(car)}[green]up in {took_s:.1f} s[/green]{escape(page)}; Ctrl-C stops it"


def by_hand(url: str, authority: Path) -> str:
    """How the first car says something to a broker under TLS, as a command line."""
    host, port, _ = probe.mqtt_address(url)
    (car,) = ca.numbered(1)
    own = authority / "cars" / car
    files = ["--cafile", f"{authority}/ca.pem", "--cert", f"{own}.pem", "--key", f"{own}.key"]
    said = ["-q", "1", "-t", mqtt_topic(car, "telemetry"), "-m", '{"speed": 30}']
    place = ["-h", host, "-p", str(port), "-i", car]
    return (
        f"  a car by hand: {shlex.join(['mosquitto_pub', *files, *place, *said])}\n"
        f"  more cars: cartwin broker ca issue --vehicles N --dir {shlex.quote(str(authority))}"
    )


@contextmanager
def _interrupted_by_signals(stack: Stack) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `stack.interrupt`; handlers belong to the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, lambda *_: stack.interrupt()) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
